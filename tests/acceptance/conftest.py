"""A running system per set of services, shared by the tests that leave it whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.brokers import shared_broker
from tests.acceptance.stack import Stack, stack
from tests.services import PostgresServer


@pytest.fixture(scope="module", params=["sqlite-redis", "postgres-rabbitmq"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API, worker and node over each kind of broker and of database."""
    database_kind, broker = request.param.split("-")
    database = ""
    if database_kind == "postgres":
        server: PostgresServer = request.getfixturevalue("shared_postgres")
        database = server.url(server.create_database())
    folder: Path = tmp_path_factory.mktemp(f"stack-{request.param}")
    with stack(
        folder,
        **shared_broker(broker, request),
        FANFARE_DATABASE_URL=database,
        FANFARE_WEBHOOK_ALLOW_PRIVATE="true",
        FANFARE_WEBHOOK_ALLOW_HTTP="true",
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_UPLOAD_TIMEOUT_S="4",
    ) as made:
        made.start_all()
        yield made

"""A running system per set of services, shared by the tests that leave it whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, stack
from tests.rabbitmq import RabbitServer
from tests.services import PostgresServer, RedisServer


@pytest.fixture(scope="module", params=["sqlite-redis", "postgres-rabbitmq"])
def running(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """API, worker and node over each kind of broker and of database."""
    broker, results, database = shared_redis.new_url(), "", ""
    if request.param == "postgres-rabbitmq":
        server: PostgresServer = request.getfixturevalue("shared_postgres")
        database = server.url(server.create_database())
        rabbitmq: RabbitServer = request.getfixturevalue("shared_rabbitmq")
        broker, results = rabbitmq.new_url(), broker
    folder: Path = tmp_path_factory.mktemp(f"stack-{request.param}")
    with stack(
        folder,
        FANFARE_BROKER_URL=broker,
        FANFARE_RESULT_URL=results,
        FANFARE_DATABASE_URL=database,
        FANFARE_WEBHOOK_ALLOW_PRIVATE="true",
        FANFARE_WEBHOOK_ALLOW_HTTP="true",
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_UPLOAD_TIMEOUT_S="4",
    ) as made:
        made.start_all()
        yield made

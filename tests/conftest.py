"""What all tests share: a clean environment, and real services that are started when first asked for."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parallel import pytest_collection_modifyitems, pytest_xdist_auto_num_workers
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.rabbitmq import RabbitServer, rabbitmq_server
from tests.services import PostgresServer, RedisServer, postgres_server, redis_server

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_auto_num_workers"]

# Before any module of ours reads its settings: what the developer has set is not what is tested.
for _name in list(os.environ):
    if _name.upper().startswith(("FANFARE_", "OPENAI_", "AWS_", "SUPABASE_")) or _name.upper().endswith(
        "_PROXY"
    ):
        del os.environ[_name]

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that: tests that
# send it to processes of their own would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_home = tempfile.TemporaryDirectory(prefix="fanfare-home-", ignore_cleanup_errors=True)
os.environ["FANFARE_HOME"] = str(Path(_home.name) / "home")


def pytest_unconfigure() -> None:
    """Takes the home of this test run away."""
    _home.cleanup()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for the whole run. A test that stops or fills a server starts one of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """An empty database of a real Redis."""
    return shared_redis.new_url()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for this test alone, to stop (`own_redis.service.stop()`) and start again."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_rabbitmq() -> Iterator[RabbitServer]:
    """One server for the whole run. A test that stops it starts it again."""
    with rabbitmq_server() as server:
        yield server


@pytest.fixture
def rabbitmq_url(shared_rabbitmq: RabbitServer) -> Iterator[str]:
    """An empty virtual host of a real RabbitMQ."""
    url = shared_rabbitmq.new_url()
    yield url
    shared_rabbitmq.drop(url)


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One server for the whole run. A test that stops a server starts one of its own."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer) -> Iterator[str]:
    """An empty database of a real Postgres."""
    name = shared_postgres.create_database()
    yield shared_postgres.url(name)
    shared_postgres.drop_database(name)


@pytest.fixture(scope="session")
def shared_pooler(shared_postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A pooler in transaction mode before the shared server."""
    with pgbouncer(shared_postgres) as pooler:
        yield pooler


@pytest.fixture
def pooled_url(postgres_url: str, shared_pooler: PgBouncer) -> str:
    """The same empty database as `postgres_url`, through the pooler, and saying so."""
    return shared_pooler.url(postgres_url.rpartition("/")[2]) + "?pgbouncer=true"


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for this test alone, to stop and start again."""
    with postgres_server() as server:
        yield server

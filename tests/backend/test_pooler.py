"""Postgres behind a pooler that gives each transaction another session: a real one, PgBouncer."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from backend import db, keys
from backend.db import Base, Database
from backend.errors import DatabaseUnavailable
from tests.pgbouncer import SESSIONS


@pytest.fixture
def pooled(pooled_url: str) -> Iterator[Database]:
    """A migrated database, through the pooler."""
    db.upgrade(pooled_url)
    database = Database(pooled_url)
    yield database
    database.close()


def test_the_pooler_is_one(pooled_url: str) -> None:
    """It refuses options, and prepared statements get lost: else the tests below would say nothing."""
    plain = pooled_url.partition("?")[0]
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(plain.replace("+psycopg", ""), options="-c statement_timeout=1000", connect_timeout=5)
    unaware = Database(plain)
    with pytest.raises(DatabaseUnavailable):
        unaware.check()
    unaware.close()

    careless = sa.create_engine(plain, pool_size=2 * SESSIONS)
    with pytest.raises(sa.exc.DBAPIError) as raised:
        _ask_in_turns(careless)
    careless.dispose()
    assert "prepared statement" in str(raised.value)


def test_statements_are_not_prepared(pooled: Database) -> None:
    _ask_in_turns(pooled.engine)


def _ask_in_turns(engine: sa.Engine) -> None:
    """Several clients, more often than psycopg waits before it prepares, each time in another session."""
    chance = random.Random(7)
    with ExitStack() as stack:
        clients = [stack.enter_context(engine.connect()) for _ in range(2 * SESSIONS)]
        for _ in range(60):
            turn = chance.sample(clients, SESSIONS)
            for client in turn:
                assert client.scalar(sa.text("SELECT :number + 1"), {"number": 1}) == 2
            for client in chance.sample(turn, SESSIONS):
                client.commit()  # a rollback would have psycopg forget what it has counted


def test_migrations_make_what_the_models_say(pooled: Database) -> None:
    pooled.check()
    with pooled.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_several_processes_may_migrate_at_once(pooled_url: str) -> None:
    """More than the pooler has sessions: those who wait for the lock must not keep out who has it."""
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            db.upgrade(pooled_url)
        except BaseException as exc:  # noqa: BLE001 - reported below
            errors.append(exc)

    threads = [threading.Thread(target=migrate) for _ in range(SESSIONS + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_a_statement_has_its_limit_and_others_keep_theirs(
    pooled: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "POSTGRES_STATEMENT_TIMEOUT_MS", 200)

    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable), pooled.session_scope() as session:
        session.execute(sa.text("SELECT pg_sleep(20)"))
    assert time.monotonic() - started < 10

    with psycopg.connect(str(pooled.url).partition("?")[0].replace("+psycopg", "")) as other:
        row = other.execute("SHOW statement_timeout").fetchone()
    assert row == ("0",)


def test_many_writers_share_few_sessions(pooled: Database) -> None:
    def write(number: int) -> None:
        for step in range(10):
            with pooled.session_scope() as session:
                keys.create(session, f"{number}-{step}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4 * SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with pooled.read_scope() as session:
        assert len(keys.list_keys(session)) == 40 * SESSIONS


@pytest.mark.parametrize(
    ("url", "is_pooled"),
    [
        ("postgresql+psycopg://u:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres", True),
        ("postgresql+psycopg://u:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres", True),
        ("postgresql+psycopg://u:p@db.ref.supabase.co:6543/postgres", True),
        ("postgresql+psycopg://u:p@db.ref.supabase.co:5432/postgres", False),
        ("postgresql+psycopg://u:p@db.internal/fanfare?sslmode=require", False),
        ("postgresql+psycopg://u:p@db.internal/fanfare?pgbouncer=true", True),
        ("postgresql+psycopg://u:p@db.internal:6543/fanfare?pgbouncer=false", False),
    ],
)
def test_poolers_are_known_by_their_address_or_said_to_be_one(url: str, is_pooled: bool) -> None:
    database = Database(url)

    _, arguments = database.engine.dialect.create_connect_args(database.engine.url)
    assert "pgbouncer" not in arguments
    assert db._is_pooled(sa.make_url(url)) is is_pooled
    database.close()

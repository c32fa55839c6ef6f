"""The database: one engine, sessions that commit in one place, migrations under a lock.

SQLite is the default and Postgres the production; everything else here is the same for both.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, Dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import JSON, TypeDecorator

from backend.errors import DatabaseUnavailable

SQLITE_BUSY_TIMEOUT_S = 15
POSTGRES_CONNECT_TIMEOUT_S = 3
POSTGRES_STATEMENT_TIMEOUT_MS = 30_000
SUPAVISOR_PORT = 6543  # in transaction mode
SUPAVISOR_HOSTS = ".pooler.supabase.com"
TRUSTED_FOR_S = 1.0  # a connection that was in use is taken as it is
MIGRATION_LOCK = 7_308_327  # any number that no other program locks in this database

Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """All tables. Constraints are named, so that migrations can name them on both databases."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in, aware UTC out, also where the database keeps no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """Opens sessions. One per process: an engine must not cross a fork."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _create_engine(url)

    @contextmanager
    def session_scope(self) -> Iterator[Session]:
        """A session that commits at its end, or rolls back all of it. Nothing is sent inside it.

        Raises `DatabaseUnavailable` when the database is away or too busy.
        """
        with _translated(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read_scope(self) -> Iterator[Session]:
        """A session for reading alone: on SQLite it waits for no writer."""
        reading = self.engine.execution_options(sqlite_begin="BEGIN")
        with _translated(), Session(reading, expire_on_commit=False) as session, session.begin():
            yield session

    def check(self) -> None:
        """Returns if the database answers and is migrated, else raises `DatabaseUnavailable`."""
        with _translated(), self.engine.execution_options(sqlite_begin="BEGIN").connect() as connection:
            if MigrationContext.configure(connection).get_current_revision() != head_revision():
                raise DatabaseUnavailable("The database is not migrated. Run `fanfare migrate`.")

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as exc:
        raise DatabaseUnavailable from exc
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise DatabaseUnavailable from exc
        raise


def _create_engine(url: str) -> Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _create_sqlite_engine(parsed)
    pooled = _is_pooled(parsed)
    session: dict[str, Any] = {
        "options": f"-c statement_timeout={POSTGRES_STATEMENT_TIMEOUT_MS} -c timezone=UTC",
    }
    engine = sa.create_engine(
        parsed.difference_update_query(["pgbouncer"]),
        pool_size=10,
        max_overflow=20,
        pool_timeout=5,
        connect_args={
            "connect_timeout": POSTGRES_CONNECT_TIMEOUT_S,
            "keepalives_idle": 30,
            "tcp_user_timeout": 15_000,
            # What a session keeps is lost, or met by others, where each transaction gets another one.
            **({"prepare_threshold": None} if pooled else session),
        },
    )
    if pooled:
        _limit_each_transaction(engine)
    _ping_after_a_rest(engine)
    return engine


def _is_pooled(url: sa.URL) -> bool:
    """Whether a pooler is before the server: by ?pgbouncer=true or false, or known as one of Supabase's."""
    said = url.query.get("pgbouncer")
    if said is not None:
        return said == "true"
    return url.port == SUPAVISOR_PORT or (url.host or "").endswith(SUPAVISOR_HOSTS)


def _limit_each_transaction(engine: Engine) -> None:
    """Poolers take no `options` at the start of a connection."""

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {POSTGRES_STATEMENT_TIMEOUT_MS}")


def _ping_after_a_rest(engine: Engine) -> None:
    """As `pool_pre_ping`, but only for connections that lay idle: else it is a tenth of each transaction.

    A server that was away kills more than those that were in use a moment ago; who meets one of these is
    told that the database is away, as he would be in the midst of his transaction.
    """

    @event.listens_for(engine, "checkin")
    def _on_checkin(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _on_checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, _fairy: object) -> None:
        rested = time.monotonic() - record.info.get("rests_since", time.monotonic())
        if rested > TRUSTED_FOR_S and not _answers(engine.dialect, connection):
            raise InvalidatePoolError


def _answers(dialect: Dialect, connection: DBAPIConnection) -> bool:
    try:
        return dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error:
        return False


def _create_sqlite_engine(url: sa.URL) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S, "check_same_thread": False}, pool_size=20
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 would begin late, and upgrade a read lock too late
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_S * 1000}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # Writers queue at BEGIN, where the busy timeout holds, instead of failing at their first write.
        options: dict[str, Any] = dict(connection.get_execution_options())
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


def _use_wal(cursor: DBAPICursor) -> None:
    """The change to WAL needs the file alone, and doesn't wait for it as everything else does."""
    end = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def head_revision() -> str | None:
    """The newest migration that this code knows."""
    return ScriptDirectory.from_config(_alembic_config()).get_current_head()


def upgrade(url: str) -> None:
    """Brings the database to the newest migration. Safe when several processes start at once."""
    database = Database(url)
    try:
        with _translated(), database.engine.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.close()

"""Migrations and sessions, on both databases."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from backend import db, keys
from backend.db import Base, Database
from backend.errors import DatabaseUnavailable
from backend.jobs import deliveries, queries
from backend.jobs.deliveries import Wanted
from backend.jobs.models import IdempotencyKey
from backend.products import models as product_models  # noqa: F401 - declares its tables
from tests.backend.conftest import MakeJob


def test_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    # Given four starts at the same moment
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def migrate() -> None:
        start.wait()
        try:
            db.upgrade(database_url)
        except BaseException as exc:  # noqa: BLE001 - reported below
            errors.append(exc)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then each finds the database migrated, and none failed
    assert errors == []
    database = Database(database_url)
    database.check()
    database.close()


def test_an_unmigrated_database_says_so(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(DatabaseUnavailable, match="not migrated"):
        database.check()
    database.close()


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    for url in ("postgresql+psycopg://nobody@127.0.0.1:1/none", f"sqlite:///{tmp_path}"):
        database = Database(url)
        with pytest.raises(DatabaseUnavailable):
            database.check()
        database.close()


@pytest.mark.parametrize("rests", [True, False])
def test_a_connection_that_died_at_rest_is_not_used(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, *, rests: bool
) -> None:
    # Given pooled connections that the server has ended
    monkeypatch.setattr(db, "TRUSTED_FOR_S", 0 if rests else 60)
    database, other = Database(postgres_url), Database(postgres_url)
    with database.read_scope() as first, database.read_scope() as second:
        pids = [session.scalar(sa.text("SELECT pg_backend_pid()")) for session in (first, second)]
    with other.session_scope() as session:
        session.execute(sa.text("SELECT pg_terminate_backend(unnest(:pids), 5000)"), {"pids": pids})
    # When the next one asks, then nobody meets them; or who asks at once is told, and only once
    if not rests:
        with pytest.raises(DatabaseUnavailable), database.read_scope() as session:
            session.scalar(sa.text("SELECT 1"))
    for _ in range(3):
        with database.read_scope() as first, database.read_scope() as second:
            assert [session.scalar(sa.text("SELECT 1")) for session in (first, second)] == [1, 1]
    database.close()
    other.close()


def test_times_come_back_in_utc(database: Database) -> None:
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    with database.session_scope() as session:
        session.add(
            IdempotencyKey(
                owner="a", key="k", fingerprint="f", job_id=UUID(int=1), response={}, created_at=there
            )
        )  # fmt: skip
    with database.read_scope() as session:
        known = queries.idempotency_key(session, "a", "k")
        assert known is not None
        assert known.created_at == there
        assert known.created_at.tzinfo is UTC


def test_a_session_is_all_or_nothing(database: Database) -> None:
    def half_way() -> None:
        with database.session_scope() as session:
            keys.create(session, "half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    with database.read_scope() as session:
        assert keys.list_keys(session) == []


def test_foreign_keys_hold(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        session.execute(sa.text("DELETE FROM jobs"))
    with database.read_scope() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM image_generations")) == 0, job_id


def test_many_writers_wait_for_each_other(database: Database) -> None:
    def write(number: int) -> None:
        for step in range(5):
            with database.session_scope() as session:
                keys.create(session, f"{number}-{step}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read_scope() as session:
        assert len(keys.list_keys(session)) == 30


def test_deliveries_live_through_the_change_of_their_table(database_url: str) -> None:
    # Given a database of before there were endpoints, with one delivery that is due and one that was made
    moment, job_id = datetime(2026, 11, 20, 12, tzinfo=UTC), UUID("01939c5e-8b1d-7f60-a7c2-e4d6b8f0a1c3")
    migrate(database_url, "0005")
    database = Database(database_url)
    given = {"id": job_id, "at": moment}
    with database.session_scope() as session:
        for statement in (OLD_JOB, OLD_EVENTS, OLD_DELIVERIES):
            session.execute(sa.text(statement).bindparams(*TYPED), given)
    # When it is migrated
    migrate(database_url, "0006")
    # Then both are there, in their order, and the one is to be sent again
    with database.session_scope() as session:
        made, due = deliveries.page(session, "ann", Wanted(), 9, before=None, after=None)[::-1]
        assert [str(made.id), str(due.id)] == [f"{str(job_id)[:-4]}0001", f"{str(job_id)[:-4]}000c"]
        assert (made.event.type, made.delivered_at, made.due_at) == ("job.created", moment, None)
        assert (due.event.type, due.attempts, due.due_at, due.sent_at) == ("job.failed", 2, moment, None)
        assert deliveries.take_due(session, datetime.now(UTC)) == [due.id]
    # And there is a way back
    migrate(database_url, "0005")
    with database.read_scope() as session:
        rows = session.execute(sa.text("SELECT seq, attempts FROM webhook_deliveries ORDER BY seq"))
        assert [tuple(row) for row in rows] == [(1, 1), (12, 2)]
    database.close()


OLD_JOB = """
    INSERT INTO jobs (id, owner, pipeline, status, input, metadata, total, run, last_event, created_at,
                      updated_at, deadline_at)
    VALUES (:id, 'ann', 'thumbnails', 'pending', '{}', '{}', 1, 1, 2, :at, :at, :at)
"""
OLD_EVENTS = """
    INSERT INTO job_events (job_id, seq, type, data, created_at)
    VALUES (:id, 1, 'job.created', '{}', :at), (:id, 12, 'job.failed', '{}', :at)
"""
OLD_DELIVERIES = """
    INSERT INTO webhook_deliveries (job_id, seq, attempts, due_at, sent_at, delivered_at)
    VALUES (:id, 1, 1, NULL, NULL, :at), (:id, 12, 2, :at, :at, NULL)
"""
TYPED = (sa.bindparam("id", type_=sa.Uuid()), sa.bindparam("at", type_=db.UtcDateTime()))


def migrate(url: str, revision: str) -> None:
    """To this very revision, up or down."""
    database = Database(url)
    with database.engine.connect() as connection, connection.begin():
        config = db._alembic_config()
        config.attributes["connection"] = connection
        current = MigrationContext.configure(connection).get_current_revision() or ""
        (command.upgrade if revision > current else command.downgrade)(config, revision)
    database.close()

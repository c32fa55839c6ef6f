"""What waits for which model, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from backend.db import Database
from backend.jobs import queries, store
from backend.jobs.faults import Fault
from backend.jobs.queries import Demand
from tests.backend.conftest import MakeJob

RETRY_WITHIN = timedelta(hours=1)


def demand(database: Database, *models: str) -> dict[str, Demand]:
    with database.read_scope() as session:
        return queries.demand(session, models)


def test_nothing_is_asked_of_models_that_nothing_waits_for(database: Database, make_job: MakeJob) -> None:
    make_job()  # no prompts yet
    assert demand(database, "sketch", "sdxl") == {}
    assert demand(database) == {}


def test_the_oldest_image_that_waits_is_told_and_others_models_are_not(
    database: Database, make_job: MakeJob
) -> None:
    before = datetime.now(UTC)
    make_job(planned=2)
    between = datetime.now(UTC)
    make_job(planned=3)
    found = demand(database, "sketch", "sdxl")
    assert set(found) == {"sketch"}
    assert (found["sketch"].waiting, found["sketch"].running) == (5, 0)
    assert found["sketch"].waiting_since is not None
    assert before <= found["sketch"].waiting_since <= between
    assert found["sketch"].oldest_wait_s(between + timedelta(seconds=9)) >= 9
    assert demand(database, "sdxl") == {}


def test_a_retry_waits_from_when_it_was_sent_again(database: Database, make_job: MakeJob) -> None:
    # Given a job that failed, and is retried long after
    now = datetime.now(UTC)
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        store.fail(session, job_id, Fault("internal", "no", retryable=True), now)
    assert demand(database, "sketch") == {}
    later = now + timedelta(days=1)
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.retry(session, job, later, RETRY_WITHIN)
    # Then it waits, but not since yesterday
    assert demand(database, "sketch") == {"sketch": Demand(waiting=2)}
    assert demand(database, "sketch")["sketch"].oldest_wait_s(later) == 0
    with database.session_scope() as session:
        again = store.lock(session, job_id)
        assert again is not None
        store.dispatching(again, later)
    assert demand(database, "sketch")["sketch"].waiting_since == later


def test_what_was_made_long_ago_is_never_looked_at(database: Database, make_job: MakeJob) -> None:
    # Given the one statement that is asked
    make_job(planned=1)
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    demand(database, "sketch", "sdxl")
    ((statement, parameters),) = [(text, given) for text, given in asked if "image_generations" in text]
    # When the database is asked how it would find the rows (of which there are too few to bother by itself)
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
        else:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    # Then by model and status
    assert "ix_image_generations_model_status" in str(plan)

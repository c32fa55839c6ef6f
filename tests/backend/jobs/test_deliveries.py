"""Who is told of which event, how deliveries go on, and what the log keeps, on both databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from backend.db import Database
from backend.errors import Conflict
from backend.jobs import deliveries, endpoints, store
from backend.jobs.deliveries import DeliveryStatus, Outcome, Wanted
from backend.jobs.models import WebhookAttempt, WebhookDelivery
from tests.backend.conftest import MakeJob, report
from tests.backend.jobs.test_store import failure, generated, saved

HOOK = {"url": "https://example.com", "events": ["image.generated", "job.completed"]}
ALICE = "alice"


def now() -> datetime:
    return datetime.now(UTC)


def add_endpoint(database: Database, *events: str, owner: str = ALICE, enabled: bool = True) -> UUID:
    with database.session_scope() as session:
        return endpoints.add(
            session, owner, now(), url="https://example.com/all", events=list(events), description="",
            enabled=enabled,
        ).id  # fmt: skip


def told(database: Database) -> list[tuple[UUID | None, int]]:
    """Who is told of which event, in order."""
    with database.read_scope() as session:
        rows = session.scalars(sa.select(WebhookDelivery).order_by(WebhookDelivery.id))
        return [(row.endpoint_id, row.seq) for row in rows]


def failed(status_code: int | None = 500) -> Outcome:
    return Outcome(status_code, f"The receiver answered {status_code}.", 12)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(database.engine, "before_cursor_execute", note)


# -- who is told --------------------------------------------------------------------------------------


def test_webhooks_follow_from_events(database: Database, make_job: MakeJob) -> None:
    job_id, waits = make_job(planned=1, webhook=HOOK), [5, 300, 1800]
    with database.session_scope() as session:
        report(session, generated(job_id, 0), now())
    with database.session_scope() as session:
        (delivery_id,) = deliveries.take_due(session, now())
        assert deliveries.take_due(session, now(), job_id) == [], "it waits in the broker"
        assert deliveries.take_due(session, now() + deliveries.LOST_AFTER * 1.1) == [delivery_id], (
            "lost there"
        )
    with database.session_scope() as session:
        claim = deliveries.claim(session, delivery_id, now())
        assert claim is not None
        assert (claim.event.type, claim.event.seq) == ("image.generated", 4)
    with database.session_scope() as session:  # in hand: nobody else takes it
        assert deliveries.claim(session, delivery_id, now()) is None
        due = deliveries.postpone(session, claim.attempt_id, failed(), now(), waits, jitter=0.5)
        assert due is not None
        assert 4 < (due - now()).total_seconds() < 8
    later = now() + timedelta(days=1)
    seen = []
    for _ in range(3):
        with database.session_scope() as session:
            claim = deliveries.claim(session, delivery_id, later)
            assert claim is not None
            due = deliveries.postpone(session, claim.attempt_id, failed(), later, waits, jitter=0)
            seen.append((due - later).total_seconds() if due else None)
            later += timedelta(days=1)
    assert seen == [300, 1800, None]
    with database.session_scope() as session:
        assert deliveries.take_due(session, later) == []
        row = deliveries.get(session, delivery_id, "local")
        assert row is not None
        assert deliveries.status_of(row) is DeliveryStatus.FAILED
        assert [(one.status_code, one.duration_ms) for one in row.log] == [(500, 12)] * 4


def test_endpoints_are_told_of_all_jobs_of_their_owner(database: Database, make_job: MakeJob) -> None:
    # Given two endpoints, one that is disabled, and one of somebody else
    first = add_endpoint(database, "job.created", "image.generated")
    second = add_endpoint(database, "image.generated")
    add_endpoint(database, "image.generated", enabled=False)
    add_endpoint(database, "image.generated", owner="bob")
    # When a job with a webhook of its own goes its way
    job_id = make_job(planned=1, owner=ALICE, webhook=HOOK)
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.take(session, job, [generated(job_id, 0)], now())
        assert job.to_tell, "whoever has recorded it knows that there is something to send"
    # Then each is told of what it asked for
    assert told(database)[0] == (first, 1)
    assert set(told(database)[1:]) == {(None, 4), (first, 4), (second, 4)}


def test_an_endpoint_hears_of_jobs_that_run_already(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=1, owner=ALICE)
    endpoint_id = add_endpoint(database, "image.failed")
    with database.session_scope() as session:
        report(session, failure(job_id, 0), now())
    assert told(database) == [(endpoint_id, 4)]


def test_events_of_owners_without_endpoints_cost_no_question(database: Database, make_job: MakeJob) -> None:
    # Given a job of an owner who has no endpoint, and one of an owner who has two
    quiet, loud = make_job(planned=8, owner="bob"), make_job(planned=8, owner=ALICE)
    for _ in range(2):
        add_endpoint(database, "image.generated")
    # When all images of each are reported at once, and saved
    asked: dict[UUID, list[str]] = {}
    for job_id in (quiet, loud):
        with statements(database) as seen, database.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            store.take(session, job, [generated(job_id, index) for index in range(8)], now())
            session.flush()
            store.save(session, job_id, 1, [saved(index) for index in range(8)], {}, now())
        asked[job_id] = [
            text for text in seen if "FROM webhook_endpoints" in text and "FROM jobs" not in text
        ]
    # Then nobody asked about the one's, and once about the other's
    assert [len(asked[job_id]) for job_id in (quiet, loud)] == [0, 1]


def test_a_new_job_costs_one_question(database: Database, make_job: MakeJob) -> None:
    with statements(database) as seen:
        make_job()
    assert len([text for text in seen if "webhook_endpoints" in text]) == 1


# -- the log ------------------------------------------------------------------------------------------


def a_delivery(database: Database, make_job: MakeJob, **values: Any) -> UUID:
    make_job(webhook={"url": "https://example.com", "events": ["job.created"]}, **values)
    with database.session_scope() as session:
        return deliveries.take_due(session, now())[-1]


def claimed(database: Database, delivery_id: UUID, at: datetime) -> UUID:
    with database.session_scope() as session:
        claim = deliveries.claim(session, delivery_id, at)
        assert claim is not None
        return claim.attempt_id


def test_an_attempt_whose_worker_died_is_told(database: Database, make_job: MakeJob) -> None:
    # Given somebody who took it in hand, and never came back
    delivery_id = a_delivery(database, make_job)
    claimed(database, delivery_id, now())
    # When its lease is over and another one delivers it
    later = now() + deliveries.LEASE * 1.1
    with database.session_scope() as session:
        deliveries.delivered(session, claimed_in(session, delivery_id, later), Outcome(204, None, 8), later)
    # Then the log tells of both
    with database.read_scope() as session:
        row = deliveries.get(session, delivery_id, "local")
        assert row is not None
        assert [(one.status_code, one.reason, one.duration_ms) for one in row.log] == [
            (None, deliveries.INTERRUPTED, None), (204, None, 8),
        ]  # fmt: skip


def claimed_in(session: sa.orm.Session, delivery_id: UUID, at: datetime) -> UUID:
    claim = deliveries.claim(session, delivery_id, at)
    assert claim is not None
    return claim.attempt_id


def test_what_was_interrupted_can_be_asked_for(database: Database, make_job: MakeJob) -> None:
    delivery_id = a_delivery(database, make_job)
    claimed(database, delivery_id, now())
    later = now() + deliveries.LEASE * 1.1
    with database.session_scope() as session:
        deliveries.redeliver(session, locked(session, delivery_id), later)
    with database.read_scope() as session:
        row = deliveries.get(session, delivery_id, "local")
        assert row is not None
        assert [one.reason for one in row.log] == [deliveries.INTERRUPTED]


def test_reasons_are_short(database: Database, make_job: MakeJob) -> None:
    attempt_id = claimed(database, a_delivery(database, make_job), now())
    with database.session_scope() as session:
        deliveries.abandon(session, attempt_id, Outcome(None, "x" * 10_000, 1))
    with database.read_scope() as session:
        (attempt,) = session.scalars(sa.select(WebhookAttempt))
        assert len(attempt.reason or "") == deliveries.MOST_CHARACTERS


def test_what_is_asked_for_again_gets_all_its_attempts(database: Database, make_job: MakeJob) -> None:
    delivery_id = a_delivery(database, make_job)
    attempt_id = claimed(database, delivery_id, now())
    # Not while somebody has it in hand
    with database.session_scope() as session, pytest.raises(Conflict, match="right now"):
        deliveries.redeliver(session, locked(session, delivery_id), now())
    with database.session_scope() as session:
        deliveries.delivered(session, attempt_id, Outcome(200, None, 1), now())
    with database.session_scope() as session:
        deliveries.redeliver(session, locked(session, delivery_id), now())
    with database.session_scope() as session:
        row = deliveries.get(session, delivery_id, "local")
        assert row is not None
        assert (row.attempts, deliveries.status_of(row)) == (0, DeliveryStatus.PENDING)
        assert len(row.log) == 1
        assert deliveries.take_due(session, now()) == [delivery_id]


def test_the_log_of_one_delivery_has_an_end(
    database: Database, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_ATTEMPTS", 1)
    delivery_id = a_delivery(database, make_job)
    attempt_id = claimed(database, delivery_id, now())
    with database.session_scope() as session:
        deliveries.abandon(session, attempt_id, failed(410))
    with database.session_scope() as session, pytest.raises(Conflict, match="enough"):
        deliveries.redeliver(session, locked(session, delivery_id), now())


def locked(session: sa.orm.Session, delivery_id: UUID) -> WebhookDelivery:
    row = deliveries.lock(session, delivery_id, "local")
    assert row is not None
    return row


def test_only_ones_own_are_listed_and_those_of_deleted_jobs_are_not(
    database: Database, make_job: MakeJob
) -> None:
    delivery_id = a_delivery(database, make_job)
    with database.session_scope() as session:
        everything = Wanted()
        for owner, count in (("local", 1), ("bob", 0)):
            page = deliveries.page(session, owner, everything, 9, before=None, after=None)
            assert len(page) == count
        assert deliveries.get(session, delivery_id, "bob") is None
        assert deliveries.lock(session, delivery_id, "bob") is None
        job = store.lock(session, page_job(session, delivery_id))
        assert job is not None
        job.deleted_at = now()
    with database.read_scope() as session:
        assert deliveries.page(session, "local", Wanted(), 9, before=None, after=None) == []
        assert deliveries.get(session, delivery_id, "local") is None


def page_job(session: sa.orm.Session, delivery_id: UUID) -> UUID:
    return session.get_one(WebhookDelivery, delivery_id).job_id


@pytest.mark.parametrize("status", DeliveryStatus)
def test_the_log_is_filtered(database: Database, make_job: MakeJob, status: DeliveryStatus) -> None:
    # Given one delivery of each kind
    ids = {kind: a_delivery(database, make_job) for kind in DeliveryStatus}
    done = claimed(database, ids[DeliveryStatus.DELIVERED], now())
    given_up = claimed(database, ids[DeliveryStatus.FAILED], now())
    with database.session_scope() as session:
        deliveries.delivered(session, done, Outcome(204, None, 1), now())
        deliveries.abandon(session, given_up, failed(410))
    with database.read_scope() as session:
        wanted = Wanted(status=status)
        (found,) = deliveries.page(session, "local", wanted, 9, before=None, after=None)
        assert (found.id, deliveries.status_of(found)) == (ids[status], status)
        wanted = Wanted(job_id=found.job_id)
        assert [one.id for one in deliveries.page(session, "local", wanted, 9, before=None, after=None)] == [
            found.id
        ]
        wanted = Wanted(endpoint_id=uuid4())
        assert deliveries.page(session, "local", wanted, 9, before=None, after=None) == []


# -- endpoints ----------------------------------------------------------------------------------------


def test_owners_have_so_many_endpoints_and_no_more(database: Database) -> None:
    for _ in range(endpoints.MOST_ENDPOINTS):
        add_endpoint(database, "job.failed")
    with pytest.raises(Conflict):
        add_endpoint(database, "job.failed")
    add_endpoint(database, "job.failed", owner="bob")


def test_two_secrets_sign_until_the_old_one_has_had_its_time(database: Database) -> None:
    day = timedelta(days=1)
    with database.session_scope() as session:
        assert endpoints.versions(endpoints.owner_secret(session, ALICE)).signing(now()) == (1,)
        endpoints.rotate_owner_secret(session, ALICE, now(), day)
    with database.session_scope() as session:
        versions = endpoints.versions(endpoints.owner_secret(session, ALICE))
        assert versions.signing(now()) == (2, 1)
        assert versions.signing(now() + day) == (2,)
        assert endpoints.rotate_owner_secret(session, ALICE, now(), day).signing(now()) == (3, 2)
        assert endpoints.rotate_owner_secret(session, ALICE, now(), day * 0).signing(now()) == (4,)

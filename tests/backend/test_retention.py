"""What expires, when, and what keeps it: on both databases, with real files."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from backend import retention
from backend.db import Database
from backend.errors import Conflict, StorageUnavailable
from backend.jobs import deliveries, ids, queries, store
from backend.jobs.deliveries import Outcome
from backend.jobs.faults import Fault
from backend.jobs.models import IdempotencyKey, Job, JobEvent, Status, WebhookAttempt, WebhookDelivery
from backend.storage.local import LocalStorage
from backend.storage.signing import Signer
from tests.backend.conftest import MakeJob

DAY = timedelta(days=1)
FAULT = Fault("engine_failed", "It broke.", retryable=True)
WEBHOOK = {"url": "https://example.com", "events": ["job.failed"]}


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(
        tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"secret")
    )


MakeEnded = Callable[..., UUID]


@pytest.fixture
def make_ended(database: Database, storage: LocalStorage, make_job: MakeJob) -> MakeEnded:
    """A job that has failed some time ago, with an original."""

    def make(ago: timedelta, kept_for: timedelta | None, **values: object) -> UUID:
        job_id = make_job(planned=1, **values)
        with database.session_scope() as session:
            assert store.fail(session, job_id, FAULT, now() - ago, kept_for)
        storage.put(ids.original_key(job_id, 0, "webp"), b"x", "image/webp")
        return job_id

    return make


def let_go(database: Database, storage: LocalStorage, kept_for: timedelta | None) -> None:
    """What the sweep does."""
    retention.keep_dates(database, kept_for)
    retention.expire(database, kept_for)
    retention.erase_deleted(database, storage)


def row(database: Database, job_id: UUID) -> Job | None:
    with database.read_scope() as session:
        return session.get(Job, job_id)


def keys(storage: LocalStorage) -> set[UUID | None]:
    return {ids.job_of(one.key) for one in storage.walk("")}


def test_a_job_is_dated_when_it_ends_and_not_before(database: Database, make_job: MakeJob) -> None:
    failed, canceled = make_job(planned=1), make_job(planned=1)
    for job_id in (failed, canceled):
        job = row(database, job_id)
        assert job is not None
        assert job.expires_at is None
    moment = now()
    with database.session_scope() as session:
        store.fail(session, failed, FAULT, moment, DAY)
        job = store.lock(session, canceled)
        assert job is not None
        store.cancel(session, job, moment, DAY)
    for job_id in (failed, canceled):
        job = row(database, job_id)
        assert job is not None
        assert job.expires_at == moment + DAY


def test_a_retry_takes_the_date_away(database: Database, make_ended: MakeEnded) -> None:
    job_id = make_ended(timedelta(0), DAY)
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.retry(session, job, now(), DAY)
        assert job.expires_at is None


def test_what_expired_goes_with_all_that_is_its(
    database: Database, storage: LocalStorage, make_ended: MakeEnded, make_job: MakeJob
) -> None:
    # Given a job that has had its time, one that has not, and one that is open
    expired, young, is_open = make_ended(2 * DAY, DAY), make_ended(DAY / 2, DAY), make_job(planned=1)
    with database.session_scope() as session:
        for job_id in (expired, young):
            session.add(
                IdempotencyKey(
                    owner="local", key=str(job_id), fingerprint="f", job_id=job_id, response={},
                    created_at=now(),
                )
            )  # fmt: skip
    # When the sweep comes
    let_go(database, storage, DAY)
    # Then the one is gone, in every table and in the storage, and the others are whole
    assert row(database, expired) is None
    assert row(database, is_open) is not None
    assert keys(storage) == {young}
    with database.read_scope() as session:
        assert list(session.scalars(sa.select(IdempotencyKey.job_id))) == [young]
        assert expired not in set(session.scalars(sa.select(JobEvent.job_id)))
        assert queries.get(session, young) is not None


def test_a_webhook_that_is_due_keeps_its_job(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    job_id = make_ended(2 * DAY, DAY, webhook=WEBHOOK)

    let_go(database, storage, DAY)
    assert row(database, job_id) is not None
    # Also while somebody is at it, and while it waits for its next try
    with database.session_scope() as session:
        (delivery,) = session.scalars(sa.select(WebhookDelivery))
        claim = deliveries.claim(session, delivery.id, now())
        assert claim
    let_go(database, storage, DAY)
    assert row(database, job_id) is not None

    with database.session_scope() as session:
        deliveries.delivered(session, claim.attempt_id, Outcome(204, None, 7), now())
    let_go(database, storage, DAY)
    assert row(database, job_id) is None
    # And the log goes with it
    with database.read_scope() as session:
        assert not list(session.scalars(sa.select(WebhookDelivery)))
        assert not list(session.scalars(sa.select(WebhookAttempt)))


@pytest.mark.parametrize("role", ["reference", "mask"])
def test_an_image_that_an_open_job_starts_from_keeps_its_job(
    database: Database, storage: LocalStorage, make_ended: MakeEnded, make_job: MakeJob, role: str
) -> None:
    source, other = make_ended(2 * DAY, DAY), make_ended(2 * DAY, DAY)
    given = {"message": "m", "width": 64, "height": 64, "output_format": "webp", "thumbnail_sizes": [32],
             "mask": None, "reference": None, role: {"image_id": str(ids.image_id(source, 0))}}  # fmt: skip
    user = make_job(input=given)
    make_job(input=given | {role: {"url": "https://example.com/a.png"}})

    let_go(database, storage, DAY)
    assert row(database, source) is not None
    assert row(database, other) is None

    with database.session_scope() as session:
        store.fail(session, user, FAULT, now(), DAY)
    let_go(database, storage, DAY)
    assert row(database, source) is None


def test_jobs_from_before_the_setting_get_notice(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    old, new = make_ended(365 * DAY, None), make_ended(DAY, None)

    let_go(database, storage, 7 * DAY)

    dates = [
        job.expires_at - now() for job in (row(database, old), row(database, new)) if job and job.expires_at
    ]
    assert [round(left / DAY, 2) for left in dates] == [1, 6]


def test_without_the_setting_nothing_expires(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    job_id = make_ended(2 * DAY, DAY)

    let_go(database, storage, None)

    job = row(database, job_id)
    assert job is not None
    assert job.expires_at is None


def test_a_retry_that_is_faster_saves_the_job(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    # Given a sweep that has found an expired job
    job_id = make_ended(2 * DAY, DAY)
    with database.read_scope() as session:
        found = queries.expired(session, now())
    assert found == [job_id]
    # When its owner retries it before the sweep goes on
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.retry(session, job, now(), DAY)
    with database.session_scope() as session:
        assert store.expire(session, found, now()) == 0
    # Then it stays, and one that is too late finds no job
    retention.erase_deleted(database, storage)
    assert keys(storage) == {job_id}
    late = make_ended(2 * DAY, DAY)
    retention.expire(database, DAY)
    with database.session_scope() as session:
        assert store.lock(session, late) is None


def test_it_goes_in_portions_and_the_longest_expired_first(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    jobs = [make_ended(days * DAY, DAY) for days in (2, 5, 3)]

    with database.read_scope() as session:
        assert queries.expired(session, now(), limit=2) == [jobs[1], jobs[2]]
    for _ in range(2):
        let_go(database, storage, DAY)
    assert keys(storage) == set()


class Away(LocalStorage):
    """A storage that is away for what belongs to one job."""

    stubborn: UUID

    def delete(self, keys):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as its base
        keys = list(keys)
        if any(ids.job_of(key) == self.stubborn for key in keys):
            raise StorageUnavailable
        super().delete(keys)


def test_what_can_not_be_deleted_keeps_its_row_and_lets_others_pass(
    database: Database, storage: LocalStorage, tmp_path: Path, make_ended: MakeEnded
) -> None:
    first, second = make_ended(3 * DAY, DAY), make_ended(2 * DAY, DAY)
    away = Away(tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"s"))
    away.stubborn = first
    retention.expire(database, DAY)
    # When its objects can't be deleted
    with pytest.raises(StorageUnavailable):
        retention.erase_deleted(database, away)
    # Then the next ones can
    assert [job.id for job in retention.erase_deleted(database, away)] == [second]
    assert keys(storage) == {first}
    # And its turn comes again
    with database.session_scope() as session:
        store.postpone_erasing(session, first, now())
    retention.erase_deleted(database, storage)
    assert keys(storage) == set()
    assert row(database, first) is None


def test_a_job_whose_pipeline_is_gone_goes_too(
    database: Database, storage: LocalStorage, make_ended: MakeEnded
) -> None:
    job_id = make_ended(2 * DAY, DAY, pipeline="posters")

    let_go(database, storage, DAY)

    assert row(database, job_id) is None
    assert keys(storage) == set()


def test_a_job_that_may_be_erased_already_is_not_accepted(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.session_scope() as session:
        job = session.get_one(Job, job_id)
        store.reserve(session, job, now() + timedelta(seconds=30))
    with pytest.raises(StorageUnavailable), database.session_scope() as session:
        store.accept(session, job, now())
    store_again = row(database, job_id)
    assert store_again is not None
    assert store_again.deleted_at is not None


def test_only_what_failed_can_be_retried_so_that_a_date_stands(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=1)
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.cancel(session, job, now(), DAY)
        with pytest.raises(Conflict):
            store.retry(session, job, now(), DAY)
        assert job.status is Status.CANCELED
        assert job.expires_at is not None

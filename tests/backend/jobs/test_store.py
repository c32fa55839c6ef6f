"""Every change of state, on both databases: what is legal happens once, what is not changes nothing."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from backend.db import Database
from backend.errors import Conflict
from backend.jobs import events, ids, queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status
from backend.jobs.store import Plan, SavedImage
from contract.messages import FailureCode, GeneratedImage, ImageFailure, ImageStarted, Timings
from tests.backend.conftest import MakeJob, report


def now() -> datetime:
    return datetime.now(UTC)


def get(database: Database, job_id: UUID) -> Job:
    with database.read_scope() as session:
        job = queries.get(session, job_id)
        assert job is not None
        return job


def log_of(database: Database, job_id: UUID) -> list[str]:
    with database.read_scope() as session:
        return [event.type for event in events.since(session, job_id, 0)]


def generated(job_id: UUID, index: int, run: int = 1, **values: Any) -> GeneratedImage:
    given: dict[str, Any] = {
        "job_id": job_id, "image_id": ids.image_id(job_id, index), "index": index, "run": run,
        "key": ids.original_key(job_id, index, "webp"), "content_type": "image/webp", "bytes": 10,
        "sha256": "0" * 64, "width": 64, "height": 64, "seed": index, "model": "sketch", "node": "n1",
        "attempts": 1, "timings": Timings(queued_ms=1, generate_ms=2, store_ms=3),
    } | values  # fmt: skip
    return GeneratedImage(**given)


def failure(job_id: UUID, index: int, run: int = 1) -> ImageFailure:
    return ImageFailure(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=run,
        code=FailureCode.OUT_OF_MEMORY, message="Too big.", retryable=True, node="n1", attempts=2,
    )  # fmt: skip


def saved(index: int, run: int = 1) -> SavedImage:
    thumbnail = {"key": "k", "width": 32, "height": 32, "content_type": "image/webp", "bytes": 5}
    return SavedImage(index, run, 10, "1" * 64, "image/webp", 64, 64, [thumbnail], "L00000fQfQfQ", "#112233")


def test_the_whole_way(database: Database, make_job: MakeJob) -> None:
    # Given a job with two images, one made and one failed
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        started = ImageStarted(
            job_id=job_id, image_id=ids.image_id(job_id, 0), index=0, run=1, node="n1", attempts=1,
            started_at=now(),
        )  # fmt: skip
        assert report(session, started, now())
        assert report(session, generated(job_id, 0), now())
        assert report(session, failure(job_id, 1), now())
    # When the batch is saved
    with database.session_scope() as session:
        assert store.save(session, job_id, 1, [saved(0)], {}, now()) is not None
    # Then the good one is kept, and the log tells all of it in order and without a gap
    job = get(database, job_id)
    assert job.status is Status.PARTIALLY_COMPLETED
    assert [image.status for image in job.images] == [Status.COMPLETED, Status.FAILED]
    assert job.images[0].sha256 == "1" * 64
    assert job.images[1].error_code == "out_of_memory"
    assert log_of(database, job_id) == [
        "job.created", "job.started", "job.planned", "image.started", "image.generated", "image.failed",
        "image.completed", "job.partially_completed",
    ]  # fmt: skip
    with database.read_scope() as session:
        assert [event.seq for event in events.since(session, job_id, 0)] == list(range(1, 9))
        assert [event.seq for event in events.since(session, job_id, 6)] == [7, 8]


def test_the_same_twice_changes_nothing(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=1)
    for _ in range(2):
        with database.session_scope() as session:
            report(session, generated(job_id, 0), now())
    with database.session_scope() as session:
        # a second node made it too, differently: the first result wins
        assert not report(session, generated(job_id, 0, sha256="f" * 64), now())
        assert not report(session, failure(job_id, 0), now())
    for _ in range(2):
        with database.session_scope() as session:
            store.save(session, job_id, 1, [saved(0)], {}, now())
    assert get(database, job_id).status is Status.COMPLETED
    assert log_of(database, job_id).count("image.generated") == 1
    assert log_of(database, job_id).count("job.completed") == 1


def test_a_second_plan_is_dropped(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        job = store.begin(session, job_id, now())
        assert job is not None
        store.plan(session, job, [Plan("another", "sketch", 9)], now())
    assert [image.prompt for image in get(database, job_id).images] == ["prompt 0", "prompt 1"]


def test_an_image_that_nobody_reports_is_lost_not_forgotten(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        report(session, generated(job_id, 0), now())
        store.save(session, job_id, 1, [saved(0)], {}, now())
    image = get(database, job_id).images[1]
    assert (image.status, image.error_code, image.error_retryable) == (Status.FAILED, "worker_lost", True)


def test_all_failed_alike_is_the_jobs_fault(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        for index in range(2):
            report(session, failure(job_id, index), now())
        store.save(session, job_id, 1, [], {}, now())
    job = get(database, job_id)
    assert (job.status, job.error_code, job.error_retryable) == (Status.FAILED, "out_of_memory", True)


def test_retry_reruns_only_what_failed(database: Database, make_job: MakeJob) -> None:
    # Given a job of which one image failed
    job_id = make_job(planned=2)
    with database.session_scope() as session:
        report(session, generated(job_id, 0), now())
        store.save(session, job_id, 1, [saved(0)], {}, now())
    # When it is retried
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.retry(session, job, now(), timedelta(hours=1))
    # Then only that one is open, and news of the first run are old stories
    with database.session_scope() as session:
        job = store.begin(session, job_id, now())
        assert job is not None
        assert [image.index for image in store.unmade(job)] == [1]
        assert not report(session, generated(job_id, 1, run=1), now())
        assert store.save(session, job_id, 1, [], {}, now()) is None
        assert report(session, generated(job_id, 1, run=2), now())
        store.save(session, job_id, 2, [saved(1, run=2)], {}, now())
    job = get(database, job_id)
    assert job.status is Status.COMPLETED
    assert [image.run for image in job.images] == [1, 2]
    with database.session_scope() as session, pytest.raises(Conflict):
        store.retry(session, job, now(), timedelta(hours=1))


def test_cancel_keeps_what_is_stored(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=3)
    with database.session_scope() as session:
        report(session, generated(job_id, 0), now())
        job = store.lock(session, job_id)
        assert job is not None
        assert store.cancel(session, job, now())
        assert not store.cancel(session, job, now())
    assert [i.status for i in get(database, job_id).images] == ["completed", "canceled", "canceled"]
    with database.session_scope() as session:
        assert not report(session, generated(job_id, 1), now())
        assert store.begin(session, job_id, now()) is None
        assert not store.fail(session, job_id, Fault("x", "y", retryable=True), now())
    assert get(database, job_id).status is Status.CANCELED


def test_fail_ends_once(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.session_scope() as session:
        assert store.fail(session, job_id, Fault("llm_timeout", "Slow.", retryable=True), now())
        assert not store.fail(session, job_id, Fault("internal", "Other.", retryable=False), now())
    job = get(database, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, "llm_timeout")


def test_events_are_numbered_under_concurrency(database: Database, make_job: MakeJob) -> None:
    # Given eight reports for the same job at the same moment
    job_id = make_job(planned=8)
    start = threading.Barrier(8)

    def take(index: int) -> None:
        start.wait()
        with database.session_scope() as session:
            report(session, generated(job_id, index), now())

    threads = [threading.Thread(target=take, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then none is lost, and their numbers have no gap
    with database.read_scope() as session:
        found = events.since(session, job_id, 0)
    assert [event.seq for event in found] == list(range(1, 12))
    assert sorted(e.data["index"] for e in found if e.type == "image.generated") == list(range(8))

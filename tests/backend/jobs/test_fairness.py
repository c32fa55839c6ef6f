"""In which order images of several owners come."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from backend import keys
from backend.db import Database
from backend.jobs import fairness, ids, queries, store
from backend.jobs.models import ImageGeneration, Job
from contract.messages import GeneratedImage, ImageStarted, Timings
from tests.backend.conftest import MakeJob, report

NOW = datetime.now(UTC)
INPUT = {"message": "m", "model": "sketch", "seed": 7, "output_format": "webp"}


def queue(database: Database, job_id: UUID, after_s: float = 0) -> list[int | None]:
    """As the mapper does it: the bands of the job's images."""
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        images = store.unmade(job)
        fairness.assign_bands(session, job, images)
        store.sending(images, NOW + timedelta(seconds=after_s))
        return [image.band for image in images]


def ahead(database: Database, job_id: UUID) -> int:
    with database.read_scope() as session:
        job = queries.get(session, job_id)
        assert job is not None
        return fairness.images_ahead(session, job, "sketch")


def begin(database: Database, job_id: UUID, index: int, after_s: float) -> None:
    at = NOW + timedelta(seconds=after_s)
    started = ImageStarted(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, node="n", attempts=1,
        started_at=at,
    )  # fmt: skip
    with database.session_scope() as session:
        assert report(session, started, at)


def finish(database: Database, job_id: UUID, index: int, generate_ms: int = 100, batch: int = 1) -> None:
    result = GeneratedImage(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, key="k", bytes=1, width=8,
        content_type="image/webp", sha256="0" * 64, height=8, seed=1, model="sketch", node="n", attempts=1,
        timings=Timings(queued_ms=0, generate_ms=generate_ms, store_ms=0), made_with={"batch": batch},
    )  # fmt: skip
    with database.session_scope() as session:
        assert report(session, result, NOW)


def test_bands_double() -> None:
    assert [fairness.band_of(rank) for rank in (0, 3, 4, 7, 8, 15, 16, 1023, 1024, 10**6)] == [
        0, 0, 1, 1, 2, 2, 3, 8, 9, 9,
    ]  # fmt: skip


def test_an_owners_jobs_count_together_and_anothers_do_not(database: Database, make_job: MakeJob) -> None:
    # Given an owner whose first job isn't planned yet, and another owner
    make_job(owner="many", total=20, input=INPUT)
    second, other = make_job(owner="many", planned=13), make_job(owner="few", planned=4)
    # Then the second job begins where the first ends, and the other owner's goes first
    assert queue(database, second) == [3] * 12 + [4]
    assert queue(database, other) == [0, 0, 0, 0]


def test_who_weighs_more_has_more_in_each_band(database: Database, make_job: MakeJob) -> None:
    with database.session_scope() as session:
        heavy = str(keys.create(session, "heavy", weight=3)[0].id)
        light = str(keys.create(session, "light")[0].id)
    bands = {owner: queue(database, make_job(owner=owner, planned=30)) for owner in (heavy, light)}
    assert bands[light] == [0] * 4 + [1] * 4 + [2] * 8 + [3] * 14
    assert bands[heavy] == [0] * 12 + [1] * 12 + [2] * 6
    # When its weight is changed, then its next job counts by the new one
    with database.session_scope() as session:
        keys.weigh(session, heavy, 10)
    assert queue(database, make_job(owner=heavy, planned=20)) == [0] * 10 + [1] * 10


def test_what_is_made_counts_no_more_and_other_models_do_not_count(
    database: Database, make_job: MakeJob
) -> None:
    first = make_job(planned=8)
    make_job(total=50, input=INPUT | {"model": "flux"})
    for index in range(6):
        finish(database, first, index)
    assert queue(database, make_job(planned=4)) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("priority", "expected"), [("high", [0, 0]), ("normal", [1, 1]), (None, [1, 1]), ("low", [2, 2])]
)
def test_priority_orders_an_owners_own(
    database: Database, make_job: MakeJob, priority: str | None, expected: list[int]
) -> None:
    make_job(total=4, input=INPUT | {"priority": "normal"})
    job = make_job(planned=2, input=INPUT | {"priority": priority})
    make_job(total=4, input=INPUT | {"priority": "normal"})  # accepted later: before `low` only
    make_job(total=90, owner="other", input=INPUT | {"priority": "high"})
    assert queue(database, job) == expected


def test_jobs_without_images_wait_in_bands_too(database: Database, make_job: MakeJob) -> None:
    # Given somebody's many events, and another's one
    many = [
        make_job(pipeline="triage", total=0, input={"type": "t", "priority": priority})
        for priority in ["normal"] * 9 + ["high"]
    ]
    other = make_job(pipeline="triage", total=0, input={"type": "t", "priority": "normal"}, owner="other")

    def band(job_id: UUID) -> int:
        with database.read_scope() as session:
            job = queries.get(session, job_id)
            assert job is not None
            return fairness.band_of_job(session, job)

    assert [band(job_id) for job_id in many] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 0]
    assert band(other) == 0


def test_the_position_follows_the_order(database: Database, make_job: MakeJob) -> None:
    # Given a large job, of which one image is in hand, and later two small ones
    large, small, last = (make_job(planned=n, owner=o) for n, o in ((40, "a"), (4, "b"), (4, "c")))
    assert ahead(database, small) == 0, "it isn't queued yet"
    for after, job_id in enumerate((large, small, last)):
        queue(database, job_id, after)
    begin(database, large, 0, 5)
    # Then nobody waits for the large one's later images
    assert (ahead(database, large), ahead(database, small), ahead(database, last)) == (0, 4, 8)
    finish(database, large, 0)
    assert ahead(database, last) == 7


def test_what_the_broker_did_not_take_is_not_in_the_line(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    queue(database, job_id)
    with database.session_scope() as session:
        store.not_sent(session, {ids.image_id(job_id, index) for index in range(2)})
    assert ahead(database, job_id) == 0


def test_the_pace_is_that_of_the_newest_images(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=3)
    with database.read_scope() as session:
        assert fairness.seconds_per_image(session, "sketch") is None
    finish(database, job_id, 0, generate_ms=3000)
    finish(database, job_id, 1, generate_ms=4000, batch=4)
    with database.read_scope() as session:
        assert fairness.seconds_per_image(session, "sketch") == 2.0
        assert fairness.seconds_per_image(session, "flux") is None


class TestPassedOver:
    """Nobody waits for ever."""

    def passed_over(self, database: Database, after_s: float) -> list[UUID]:
        with database.read_scope() as session:
            return fairness.passed_over(
                session, NOW + timedelta(seconds=after_s), patience=timedelta(seconds=60)
            )

    def move(self, database: Database, job_id: UUID, after_s: float) -> list[int]:
        with database.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            moved = fairness.move_forward(session, job, NOW + timedelta(seconds=after_s))
            store.sending(moved, NOW + timedelta(seconds=after_s))
            return [image.index for image in moved]

    def test_who_was_served_nothing_for_long_is_found_once(
        self, database: Database, make_job: MakeJob
    ) -> None:
        first, second = make_job(planned=20), make_job(planned=20)
        for job_id in (first, second):
            queue(database, job_id)
        assert self.passed_over(database, 59) == []
        assert self.passed_over(database, 61) == [first]
        # When some of its images were moved forward, then it is the others' turn to wait
        assert self.move(database, first, 61) == [4, 5, 6, 7]
        assert self.passed_over(database, 62) == []
        assert self.passed_over(database, 122) == [first]
        assert self.move(database, first, 122) == [8, 9, 10, 11]

    def test_who_was_served_in_one_job_waits_in_the_other(
        self, database: Database, make_job: MakeJob
    ) -> None:
        first, second = make_job(planned=8), make_job(planned=8)
        for job_id in (first, second):
            queue(database, job_id)
        begin(database, first, 0, 30)
        assert self.passed_over(database, 61) == []
        assert self.passed_over(database, 95) == [first]


def test_the_input_of_older_jobs_has_no_priority(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=1)
    with database.read_scope() as session:
        row = session.execute(sa.select(Job.input["priority"].as_string()).where(Job.id == job_id)).one()
        assert row == (None,)
        assert session.scalar(sa.select(ImageGeneration.band)) is None

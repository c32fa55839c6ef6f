"""What the sweep holds for lost, and what it does about it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis

from backend import rescue, submit
from backend.jobs import events, ids, losses, store
from backend.jobs.models import Status
from backend.tasks import gpu
from contract.messages import ImageStarted
from contract.queues import DEFAULT_QUEUE, LLM_QUEUE, MEDIA_QUEUE, gpu_queue
from tests.backend.conftest import MakeJob, report
from tests.backend.jobs.test_store import generated
from tests.backend.workplace import NODE, Workplace
from tests.services import RedisServer

SKETCH = gpu_queue("sketch")


@pytest.fixture
def place(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(database_url, redis_url, tmp_path)
    yield place
    place.close()


def sent(place: Workplace, make_job: MakeJob, count: int, **values: object) -> UUID:
    """A job whose images were given to the nodes; the broker has forgotten them."""
    job_id = make_job(planned=count, **values)
    with place.parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.dispatching(job, datetime.now(UTC))
    assert gpu.release(place.parts, job_id) == count
    assert len(place.waiting(SKETCH)) == count
    return job_id


def begin(place: Workplace, job_id: UUID, index: int) -> None:
    now = datetime.now(UTC)
    started = ImageStarted(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, node=NODE, attempts=1,
        started_at=now,
    )  # fmt: skip
    with place.parts.db.session_scope() as session:
        assert report(session, started, now)


def make(place: Workplace, job_id: UUID, *indexes: int) -> None:
    for index in indexes:
        with place.parts.db.session_scope() as session:
            assert report(session, generated(job_id, index), datetime.now(UTC))


def indexes_sent(place: Workplace) -> list[int]:
    return sorted(message["index"] for message in place.waiting(SKETCH))


class TestImagesThatWait:
    def test_what_vanished_from_its_queue_is_sent_again_but_not_at_every_round(
        self, place: Workplace, make_job: MakeJob
    ) -> None:
        # Given two images that the broker has lost
        job_id = sent(place, make_job, 2)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [], "they may be on their way"
        # When nothing was heard of them for long
        place.age(job_id, 31)
        rescue.rescue(place.parts)
        # Then they are sent again, under another id
        assert indexes_sent(place) == [0, 1]
        assert [image.sends for image in place.job(job_id).images] == [2, 2]
        # And once more only after twice the time
        place.age(job_id, 31)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == []
        place.age(job_id, 31)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [0, 1]

    def test_what_waits_for_its_turn_is_left_alone(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = sent(place, make_job, 1)
        place.age(job_id, 3600)
        place.fill(SKETCH)
        rescue.rescue(place.parts)
        assert len(place.waiting(SKETCH)) == 1
        assert place.job(job_id).images[0].sends == 1

    def test_what_others_have_passed_is_lost_also_while_all_are_busy(
        self, place: Workplace, make_job: MakeJob
    ) -> None:
        # Given an image, and one of another owner that was sent much later and is made already
        first = sent(place, make_job, 1, owner="first")
        place.age(first, 60)
        later = sent(place, make_job, 2, owner="later")
        make(place, later, 0)
        place.fill(SKETCH)
        # Then the first is sent again, though others wait
        rescue.rescue(place.parts)
        assert [m["job_id"] for m in place.waiting(SKETCH) if m] == [str(first)]

    def test_many_that_wait_longer_in_worse_bands_hide_nothing(
        self, place: Workplace, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a round that looks at five of each band, and nine images of which five wait in worse ones
        monkeypatch.setattr(losses, "OF_EACH_BAND", 5)
        place.age(sent(place, make_job, 9, owner="many"), 600)
        lost = sent(place, make_job, 1, owner="lost")
        place.age(lost, 60)
        later = sent(place, make_job, 2, owner="later")
        make(place, later, 0)
        place.fill(SKETCH)
        rescue.rescue(place.parts)
        assert str(lost) in [m["job_id"] for m in place.waiting(SKETCH) if m]

    def test_what_waits_in_a_later_band_was_not_passed(self, place: Workplace, make_job: MakeJob) -> None:
        many = sent(place, make_job, 9, owner="many")
        make(place, many, *range(4))  # of the first band
        place.age(many, 60)
        few = sent(place, make_job, 1, owner="few")
        make(place, few, 0)
        place.fill(SKETCH)
        rescue.rescue(place.parts)
        assert len(place.waiting(SKETCH)) == 1

    def test_what_a_node_has_in_hand_and_not_begun_is_not_lost(
        self, place: Workplace, make_job: MakeJob
    ) -> None:
        job_id = sent(place, make_job, 2)
        place.age(job_id, 3600)
        place.announce(in_hand=[ids.image_id(job_id, 0)])
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [1]

    def test_what_was_never_sent_is_sent(self, place: Workplace, make_job: MakeJob) -> None:
        # Given a job whose mapper died before it had sent anything
        job_id = make_job(planned=3)
        with place.parts.db.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            store.dispatching(job, datetime.now(UTC))
        place.age(job_id, 31)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [0, 1, 2]


class TestImagesInHand:
    def test_a_lease_holds_as_long_as_a_live_node_says_so(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = sent(place, make_job, 2)
        for index in range(2):
            begin(place, job_id, index)
        place.announce(in_hand=[ids.image_id(job_id, 0)])
        # When all leases have ended, of which one is renewed
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        # Then the other one is lost
        assert indexes_sent(place) == [1]
        held, lost = place.job(job_id).images
        assert (held.losses, lost.losses) == (0, 1)
        assert held.leased_until is not None
        assert held.leased_until > datetime.now(UTC)

    def test_what_was_lost_waits_again_for_as_long_as_others_are_before_it(
        self, place: Workplace, make_job: MakeJob
    ) -> None:
        # Given an image that was lost once, and whose new message waits in a long queue
        job_id = sent(place, make_job, 1)
        begin(place, job_id, 0)
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [0]
        place.fill(SKETCH)
        # Then that is no loss, however long it takes
        for _ in range(20):
            place.age(job_id, 120)
            rescue.rescue(place.parts)
        image = place.job(job_id).images[0]
        assert (image.status, image.losses, image.sends) == (Status.PENDING, 1, 2)

    def test_reports_that_wait_are_waited_for(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = sent(place, make_job, 1)
        begin(place, job_id, 0)
        place.fill(DEFAULT_QUEUE)
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == []
        # But not for ever
        place.age(job_id, 300)
        rescue.rescue(place.parts)
        assert indexes_sent(place) == [0]

    def test_while_nobody_can_say_nothing_is_lost(
        self, place: Workplace, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = sent(place, make_job, 1)
        begin(place, job_id, 0)
        place.age(job_id, 60)

        def away() -> None:
            raise redis.ConnectionError

        monkeypatch.setattr(place.parts.signals, "nodes", away)
        place.look_again()
        rescue.rescue(place.parts)
        assert indexes_sent(place) == []
        until = place.job(job_id).images[0].leased_until
        assert until is not None
        assert until > datetime.now(UTC), "nodes have time to announce themselves again"

    def test_who_is_lost_each_time_ends_and_the_job_with_it(
        self, place: Workplace, make_job: MakeJob
    ) -> None:
        job_id = sent(place, make_job, 2)
        make(place, job_id, 1)
        for _ in range(store.MOST_LOSSES):
            begin(place, job_id, 0)
            place.age(job_id, 3600)
            rescue.rescue(place.parts)
        assert len(place.waiting(SKETCH)) == store.MOST_LOSSES - 1
        with place.parts.db.read_scope() as session:
            happened = [event.type for event in events.since(session, job_id, 0)]
        assert happened.count("image.requeued") == store.MOST_LOSSES - 1
        image = place.job(job_id).images[0]
        assert (image.status, image.error_code, image.error_retryable) == (
            Status.FAILED, "worker_lost", True,
        )  # fmt: skip
        assert place.waiting(MEDIA_QUEUE) == [{"job_id": str(job_id), "run": 1}]


class TestSteps:
    def dispatched(self, place: Workplace, make_job: MakeJob) -> UUID:
        job_id = make_job()
        submit.dispatch(place.parts, job_id)
        assert len(place.waiting(LLM_QUEUE)) == 1
        return job_id

    def test_a_step_that_vanished_is_sent_again_ever_later(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = self.dispatched(place, make_job)
        for expected in (1, 0, 1):  # after 31, 31 and 62 seconds
            place.age(job_id, 31)
            rescue.rescue(place.parts)
            assert len(place.waiting(LLM_QUEUE)) == expected
        assert place.job(job_id).sends == 3

    def test_a_step_that_waits_is_not(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = self.dispatched(place, make_job)
        place.fill(LLM_QUEUE)
        place.age(job_id, 250)
        rescue.rescue(place.parts)
        assert len(place.waiting(LLM_QUEUE)) == 1
        # But a queue that is never empty hides nothing for ever
        place.fill(LLM_QUEUE)
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        assert len(place.waiting(LLM_QUEUE)) == 2

    def test_prompts_that_are_being_written_are_waited_for(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = self.dispatched(place, make_job)
        until = datetime.now(UTC) + timedelta(seconds=90)
        with place.parts.db.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            assert store.claim(job, "one", until, datetime.now(UTC))
            # And nobody else writes them meanwhile, but the same task when it is delivered again
            assert not store.claim(job, "another", until, datetime.now(UTC))
            assert store.claim(job, "one", until, datetime.now(UTC))
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        assert place.waiting(LLM_QUEUE) == []
        place.age(job_id, 60)
        rescue.rescue(place.parts)
        assert len(place.waiting(LLM_QUEUE)) == 1

    def test_an_end_that_was_never_saved_is_saved(self, place: Workplace, make_job: MakeJob) -> None:
        job_id = sent(place, make_job, 1)
        make(place, job_id, 0)
        place.age(job_id, 100)
        rescue.rescue(place.parts)
        assert place.waiting(DEFAULT_QUEUE) == [], "it may be at work"
        place.age(job_id, 30)
        rescue.rescue(place.parts)
        assert place.waiting(DEFAULT_QUEUE) == [{"job_id": str(job_id), "run": 1}]


def test_without_a_broker_nothing_is_changed(
    database_url: str, own_redis: RedisServer, make_job: MakeJob, tmp_path: Path
) -> None:
    place = Workplace(database_url, own_redis.url(), tmp_path)
    job_id = sent(place, make_job, 1)
    place.age(job_id, 60)
    own_redis.service.stop()
    place.look_again()
    rescue.rescue(place.parts)
    assert place.job(job_id).images[0].sends == 1
    own_redis.service.start()
    place.look_again()
    rescue.rescue(place.parts)
    assert indexes_sent(place) == [0]
    place.close()

"""The fan-in: reports come late, twice, out of order, as nonsense; each image ends once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.errors import BrokerUnavailable
from backend.jobs import ids, store
from backend.jobs.models import Status
from backend.tasks import gpu
from backend.tasks.reports import take_reports
from contract.messages import FailureCode, ImageFailure, ImageStarted, Message
from contract.queues import MEDIA_QUEUE, gpu_queue
from tests.backend.conftest import MakeJob
from tests.backend.jobs.test_store import failure, generated, log_of
from tests.backend.workplace import NODE, Workplace, working

SKETCH = gpu_queue("sketch")


@pytest.fixture
def place(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    yield from working(Workplace(database_url, redis_url, tmp_path), monkeypatch)


@pytest.fixture
def place_with_limit(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    place = Workplace(database_url, redis_url, tmp_path, max_running_images_per_owner=3)
    yield from working(place, monkeypatch)


def sent(place: Workplace, make_job: MakeJob, count: int, **values: Any) -> UUID:
    job_id = make_job(planned=count, **values)
    gpu.release(place.parts, job_id)
    return job_id


def started(job_id: UUID, index: int) -> ImageStarted:
    return ImageStarted(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, node=NODE, attempts=1,
        started_at=datetime.now(UTC),
    )  # fmt: skip


def failed(job_id: UUID, index: int, code: FailureCode) -> ImageFailure:
    return failure(job_id, index).model_copy(update={"code": code})


def tell(*messages: Message | object) -> None:
    take_reports([one.to_wire() if isinstance(one, Message) else one for one in messages])


def saves(place: Workplace) -> list[str]:
    return [message["job_id"] for message in place.waiting(MEDIA_QUEUE)]


def test_whoever_brings_the_last_report_has_the_job_saved(place: Workplace, make_job: MakeJob) -> None:
    # Given two jobs whose reports come mixed, twice and out of order
    one, other = sent(place, make_job, 3), sent(place, make_job, 1)
    tell(started(one, 0), generated(one, 0), started(other, 0), generated(one, 0), started(one, 0))
    assert saves(place) == []
    tell(failure(one, 2), generated(other, 0))
    assert saves(place) == [str(other)]
    tell(started(one, 1))
    tell(generated(one, 1), generated(one, 2))
    # Then each is saved once it is made, and what came first stands
    assert saves(place) == [str(one)]
    statuses = [(image.status, image.generated_at is not None) for image in place.job(one).images]
    assert statuses == [
        (Status.IN_PROGRESS, True), (Status.IN_PROGRESS, True), (Status.FAILED, False),
    ]  # fmt: skip
    assert log_of(place.parts.db, one).count("image.generated") == 2


def test_what_comes_again_after_the_last_sends_it_again(place: Workplace, make_job: MakeJob) -> None:
    # Given a worker that died between the commit and the sending: its message comes again
    job_id = sent(place, make_job, 1)
    for _ in range(2):
        tell(generated(job_id, 0))
    assert saves(place) == [str(job_id)] * 2, "harmless: the second finds it saved"


def test_nonsense_harms_no_neighbour(place: Workplace, make_job: MakeJob) -> None:
    job_id = sent(place, make_job, 1)
    nobody = generated(uuid4(), 0)
    tell({"kind": "generated"}, "what?", None, nobody, generated(job_id, 7), generated(job_id, 0))
    assert saves(place) == [str(job_id)]


def test_an_expired_upload_is_signed_anew_a_few_times(place: Workplace, make_job: MakeJob) -> None:
    job_id = sent(place, make_job, 2)
    place.waiting(SKETCH)
    tell(generated(job_id, 1))
    expired = failed(job_id, 0, FailureCode.UPLOAD_EXPIRED)
    for _ in range(store.UPLOAD_ATTEMPTS - 1):
        tell(started(job_id, 0), expired)
        assert [message["index"] for message in place.waiting(SKETCH)] == [0]
        assert saves(place) == []
    tell(started(job_id, 0), expired)
    assert place.waiting(SKETCH) == []
    assert saves(place) == [str(job_id)]
    assert place.job(job_id).images[0].error_code == "upload_expired"


def test_who_only_waits_longer_than_urls_live_is_signed_anew_as_often_as_it_takes(
    place: Workplace, make_job: MakeJob
) -> None:
    # Given an image that nobody comes to within its URL's life, again and again
    job_id = sent(place, make_job, 1)
    place.waiting(SKETCH)
    late = failed(job_id, 0, FailureCode.UPLOAD_EXPIRED).model_copy(update={"attempts": 0})
    for _ in range(store.UPLOAD_ATTEMPTS + 2):
        _queued_before(place, job_id, store.LONG_WAIT)
        tell(late)
        assert [message["index"] for message in place.waiting(SKETCH)] == [0]
    # When it comes back at once, then it isn't the queue's fault, and there is an end of it
    for _ in range(store.UPLOAD_ATTEMPTS):
        tell(late)
    assert place.job(job_id).images[0].error_code == "upload_expired"


def _queued_before(place: Workplace, job_id: UUID, by: timedelta) -> None:
    with place.parts.db.session_scope() as session:
        (image,) = store.lock(session, job_id).images  # type: ignore[union-attr]
        image.queued_at -= by  # type: ignore[operator]


def test_what_was_canceled_on_a_node_while_its_job_goes_on_is_not_its_end(
    place: Workplace, make_job: MakeJob
) -> None:
    job_id = sent(place, make_job, 1)
    tell(started(job_id, 0), failed(job_id, 0, FailureCode.CANCELED))
    assert place.job(job_id).images[0].status is Status.IN_PROGRESS


def test_an_owner_has_no_more_images_with_the_nodes_than_is_allowed(
    place_with_limit: Workplace, make_job: MakeJob
) -> None:
    # Given an owner who may have three images with the nodes, and wants seven
    place = place_with_limit
    first, second = sent(place, make_job, 2), sent(place, make_job, 5)
    other = sent(place, make_job, 1, owner="other")
    assert len(place.waiting(SKETCH)) == 2 + 1 + 1
    # Then each that ends lets another one in, of whichever of the owner's jobs is next
    tell(generated(first, 0), failure(first, 1))
    assert [message["index"] for message in place.waiting(SKETCH)] == [1, 2]
    tell(started(second, 0))
    assert place.waiting(SKETCH) == []
    for index in range(5):
        tell(generated(second, index))
    assert [message["index"] for message in place.waiting(SKETCH)] == [3, 4]
    assert saves(place) == [str(first), str(second)]
    assert place.job(other).images[0].queued_at is not None


def test_what_the_broker_does_not_take_stays_to_be_sent(
    place: Workplace, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker that is lost after the second of four messages
    job_id = make_job(planned=4)
    publish, count = place.parts.celery.send_task, iter(range(4))

    def breaks(*args: Any, **options: Any) -> Any:
        if next(count) == 2:
            raise OSError("gone")
        return publish(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place.parts.celery, "send_task", breaks)
        with pytest.raises(BrokerUnavailable):
            gpu.release(place.parts, job_id)
    # Then what it took is known, and the rest is sent by whoever comes next
    assert [image.queued_at is not None for image in place.job(job_id).images] == [True, True, False, False]
    assert gpu.release(place.parts, job_id) == 2
    assert sorted(message["index"] for message in place.waiting(SKETCH)) == [0, 1, 2, 3]

"""One message in, one result out: the use case with a real store, a real upload, and a small real engine."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from PIL import Image

from contract.messages import FailureCode, GeneratedImage, GenerateImage, ImageFailure, ImageStarted
from contract.signals import Signals, connect
from gpu_worker import generation
from gpu_worker.announcer import Tally
from gpu_worker.batcher import Batcher, Draining
from gpu_worker.engine_thread import EngineThread
from gpu_worker.engines.base import Failure, ImageRequest, Outcome
from gpu_worker.fail_open import FailOpen
from gpu_worker.finisher import Finisher
from gpu_worker.generation import Generation, Parts
from gpu_worker.reports import Result, to_keep
from gpu_worker.upload import Uploader
from gpu_worker.watch import NodeWatch
from tests.gpu_worker.http_server import Answer, ScriptedServer
from tests.gpu_worker.messages import download_from, message, upload_to
from tests.gpu_worker.solid_engine import SolidEngine
from tests.gpu_worker.test_reference import encode

NODE = "n/cpu/1"
PICTURE = encode(Image.new("RGB", (40, 20), "red"))


class Heard:
    """In the place of `Reports`: what the backend is told."""

    def __init__(self, signals: Signals, fail_open: FailOpen) -> None:
        self.signals = signals
        self.fail_open = fail_open
        self.starts: list[ImageStarted] = []
        self.ends: list[Result] = []

    def started(self, started: ImageStarted) -> None:
        self.starts.append(started)

    def ended(self, result: Result) -> None:
        self.fail_open(lambda: self.signals.keep_results(to_keep([result])), None)
        self.ends.append(result)


class Rig:
    def __init__(self, signals: Signals, storage: ScriptedServer) -> None:
        self.signals = signals
        self.storage = storage
        self.tally = Tally()
        self.uploader = Uploader(5, first_pause_s=0.01)
        self.engine = SolidEngine()
        fail_open = FailOpen("The store", (redis.RedisError,))
        self.heard = Heard(signals, fail_open)
        self.batcher = Batcher(self.engine, window_s=0, crowd=4)
        self.watch = NodeWatch(signals, fail_open)
        self.thread = EngineThread(self.engine, self.batcher, self.watch, lambda: None)
        parts = Parts(
            batcher=self.batcher,
            watch=self.watch,
            finisher=Finisher(self.uploader, "Fanfare 1"),
            signals=signals,
            fail_open=fail_open,
            reports=self.heard,  # type: ignore[arg-type]
            tally=self.tally,
        )
        cards = {card.name: card for card in self.engine.models()}
        self.generation = Generation(NODE, cards, parts, attempts_allowed=2)
        self.pool = ThreadPoolExecutor(4)

    def message(self, **changes: Any) -> GenerateImage:
        return message(**{"upload": upload_to(self.storage.url + "/u?signature=x"), **changes})

    def make(self, asked: GenerateImage | None = None) -> Result:
        return self.generation.make((asked or self.message()).to_wire())

    def fails(self, asked: GenerateImage | None = None) -> ImageFailure:
        result = self.make(asked)
        assert isinstance(result, ImageFailure)
        assert self.heard.ends[-1] == result
        return result

    def end(self) -> None:
        self.engine.go.set()
        self.batcher.close()
        self.watch.stop()
        self.thread.join(5)
        self.pool.shutdown()
        self.uploader.close()


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_PAUSE_S", 0.01)


def running(signals: Signals, storage: ScriptedServer) -> Iterator[Rig]:
    rig = Rig(signals, storage)
    rig.thread.start()
    rig.watch.start()
    yield rig
    rig.end()


@pytest.fixture
def files() -> Iterator[ScriptedServer]:
    """Hands out references."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def rig(signals: Signals, storage: ScriptedServer) -> Iterator[Rig]:
    yield from running(signals, storage)


@pytest.fixture
def rig_without_store(storage: ScriptedServer) -> Iterator[Rig]:
    client = connect("redis://127.0.0.1:1/0")
    yield from running(Signals(client), storage)
    client.close()


def test_makes_stores_and_reports_an_image(rig: Rig) -> None:
    asked = rig.message(index=3, seed=9)

    result = rig.make(asked)

    assert isinstance(result, GeneratedImage)
    (put,) = rig.storage.seen
    assert result.sha256 == hashlib.sha256(put.body).hexdigest()
    assert (result.bytes, result.content_type) == (len(put.body), "image/png")
    assert (result.key, result.index, result.run, result.seed) == (asked.key, 3, 1, 9)
    assert (result.width, result.height, result.node, result.attempts) == (64, 48, NODE, 1)
    assert None not in (result.timings.queued_ms, result.timings.generate_ms, result.timings.store_ms)
    assert [(start.image_id, start.attempts) for start in rig.heard.starts] == [(asked.image_id, 1)]
    assert rig.heard.ends == [result]
    assert (rig.tally.running, rig.tally.done, rig.tally.failed) == (0, 1, 0)


def test_an_image_starts_from_what_the_message_names(rig: Rig, files: ScriptedServer) -> None:
    files.script([Answer(body=PICTURE)])
    given = download_from(files.url + "/r", PICTURE)

    made = rig.make(rig.message(task="inpainting", reference=given, mask=given, strength=0.4))

    assert isinstance(made, GeneratedImage)
    (request,) = rig.engine.requests
    assert request.reference is not None
    assert request.mask is not None
    assert (request.task, request.strength) == ("inpainting", 0.4)
    assert (request.reference.mode, request.mask.mode) == ("RGB", "L")


def test_a_reference_that_can_not_be_had_is_a_failure(rig: Rig, files: ScriptedServer) -> None:
    files.script([Answer(404), Answer(body=b"not an image")])
    gone, broken = download_from(files.url + "/r", PICTURE), download_from(files.url + "/r", b"not an image")

    codes = [rig.fails(rig.message(task="image-to-image", reference=one)).code for one in (gone, broken)]

    assert codes == [FailureCode.REFERENCE_UNAVAILABLE, FailureCode.REFERENCE_REFUSED]
    assert rig.engine.batches == []


def test_a_reference_whose_url_expired_is_signed_anew_as_uploads_are(rig: Rig, files: ScriptedServer) -> None:
    files.script([Answer(403), Answer(body=PICTURE)])
    asked = rig.message(task="image-to-image", reference=download_from(files.url + "/r", PICTURE))

    assert rig.fails(asked).code is FailureCode.UPLOAD_EXPIRED
    assert isinstance(rig.make(asked), GeneratedImage)  # the same run: nothing was kept, nothing counted
    assert rig.signals.receive(asked.job_id, asked.image_id, asked.run).number == 2


@pytest.mark.parametrize("given", [{}, {"mask": True}, {"reference": True, "mask": True}])
def test_a_task_needs_what_it_starts_from(rig: Rig, given: dict[str, bool]) -> None:
    starts = {name: download_from("http://127.0.0.1:9/r", PICTURE) for name in given}

    assert rig.fails(rig.message(task="image-to-image", **starts)).code is FailureCode.INVALID_REQUEST


def test_a_second_delivery_gets_the_first_result_and_makes_nothing(rig: Rig) -> None:
    asked = rig.message()
    first = rig.make(asked)

    assert rig.make(asked) == first
    assert len(rig.engine.batches) == len(rig.storage.seen) == 1
    assert rig.heard.ends == [first, first]


def test_a_delivery_while_the_image_is_in_hand_waits_for_its_result(rig: Rig) -> None:
    asked = rig.message()
    rig.engine.go.clear()
    first = rig.pool.submit(rig.make, asked)
    assert rig.engine.begun.wait(5)
    second = rig.pool.submit(rig.make, asked)
    rig.engine.go.set()

    assert first.result(5) == second.result(5)
    assert len(rig.engine.batches) == 1
    assert rig.signals.receive(asked.job_id, asked.image_id, 1).number == 2  # one was counted


def test_a_new_run_of_the_image_is_made_anew(rig: Rig) -> None:
    image_id = uuid4()

    rig.make(rig.message(image_id=image_id, run=1))
    rig.make(rig.message(image_id=image_id, run=2))

    assert len(rig.engine.batches) == 2


@pytest.mark.parametrize(
    ("changes", "code", "retryable"),
    [
        ({"model": "unknown"}, FailureCode.MODEL_NOT_AVAILABLE, True),
        ({"width": 4096}, FailureCode.INVALID_REQUEST, False),
        ({"height": 8}, FailureCode.INVALID_REQUEST, False),
        ({"width": 100}, FailureCode.INVALID_REQUEST, False),
        ({"steps": 0}, FailureCode.INVALID_REQUEST, False),
        ({"steps": 151}, FailureCode.INVALID_REQUEST, False),
        ({"deadline": datetime.now(UTC) - timedelta(seconds=1)}, FailureCode.DEADLINE_EXCEEDED, True),
        ({"upload": upload_to(expires_s=-1)}, FailureCode.UPLOAD_EXPIRED, True),
    ],
)
def test_what_is_of_no_use_is_not_begun(
    rig: Rig, changes: dict[str, Any], code: FailureCode, retryable: bool
) -> None:
    failure = rig.fails(rig.message(**changes))

    assert (failure.code, failure.retryable, failure.attempts) == (code, retryable, 0)
    assert rig.engine.batches == []
    assert rig.heard.starts == []
    assert rig.tally.failed == 1


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "text",
        {},
        {"job_id": "x", "index": -1, "run": "y"},
        {**message().to_wire(), "surprise": 1},
        {**message().to_wire(), "width": 0},
    ],
)
def test_a_message_that_is_not_valid_is_answered_from_what_can_be_read(rig: Rig, raw: Any) -> None:
    failure = rig.generation.make(raw)

    assert isinstance(failure, ImageFailure)
    assert (failure.code, failure.retryable) == (FailureCode.INVALID_REQUEST, False)
    if isinstance(raw, dict) and "prompt" in raw:
        assert failure.image_id == UUID(raw["image_id"])


def test_the_log_of_a_bad_message_keeps_its_signed_url(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.generation.make({**rig.message().to_wire(), "surprise": 1})

    assert "signature" not in caplog.text


def test_a_prompt_that_killed_its_nodes_ends_as_poison(rig: Rig) -> None:
    asked = rig.message()
    for _ in ("among others", "then alone"):  # deliveries that nobody survived
        rig.signals.receive(asked.job_id, asked.image_id, asked.run)
    rig.signals.count_alone(asked.image_id, asked.run)

    failure = rig.fails(asked)

    assert (failure.code, failure.retryable) == (FailureCode.WORKER_LOST, True)
    assert rig.engine.batches == []


def test_a_store_that_forgot_its_counts_is_no_failure(rig: Rig) -> None:
    # Given an image that was handed back after the store was flushed
    asked = rig.message()
    rig.signals.take_back_attempt(asked.image_id, asked.run)

    result = rig.make(asked)

    assert isinstance(result, GeneratedImage)
    assert result.attempts == 1


def test_a_prompt_that_only_waited_in_nodes_that_died_is_made(rig: Rig) -> None:
    asked = rig.message()
    for _ in range(9):
        rig.signals.receive(asked.job_id, asked.image_id, asked.run)

    assert isinstance(rig.make(asked), GeneratedImage)
    assert rig.signals.times_alone(asked.image_id, asked.run) == 1


def test_an_image_is_reported_as_begun_once_the_engine_begins(rig: Rig) -> None:
    rig.engine.go.clear()
    first = rig.pool.submit(rig.make, rig.message(width=128))
    assert rig.engine.begun.wait(5)
    second = rig.pool.submit(rig.make, rig.message())
    while len(rig.batcher) < 1:
        threading.Event().wait(0.01)

    assert len(rig.heard.starts) == 1
    rig.engine.go.set()
    assert all(isinstance(future.result(5), GeneratedImage) for future in (first, second))
    assert len(rig.heard.starts) == 2


def test_a_prompt_that_may_have_killed_a_node_goes_alone(rig: Rig) -> None:
    rig.engine.go.clear()
    others = [rig.pool.submit(rig.make, rig.message(prompt="first"))]
    assert rig.engine.begun.wait(5)
    suspect = rig.message(prompt="suspect")
    rig.signals.receive(suspect.job_id, suspect.image_id, suspect.run)
    others += [rig.pool.submit(rig.make, asked) for asked in (suspect, rig.message(prompt="other"))]
    while len(rig.batcher) < 2:
        threading.Event().wait(0.01)
    rig.engine.go.set()

    assert all(isinstance(other.result(5), GeneratedImage) for other in others)
    assert ["suspect"] in rig.engine.batches


def engine_failure(
    code: FailureCode, *, retryable: bool
) -> Callable[[Sequence[ImageRequest]], list[Outcome]]:
    return lambda batch: [Failure(code, "plain words", retryable=retryable)] * len(batch)


def test_what_failed_in_a_batch_is_tried_again_alone(rig: Rig) -> None:
    def fail_if_crowded(batch: Sequence[ImageRequest]) -> list[Outcome] | None:
        if any(request.prompt == "bad" for request in batch):
            raise RuntimeError("one of you breaks me")
        return None

    rig.engine.go.clear()
    first = rig.pool.submit(rig.make, rig.message(width=128))
    assert rig.engine.begun.wait(5)
    rig.engine.misbehave = [fail_if_crowded] * 9
    asked = [rig.pool.submit(rig.make, rig.message(prompt=prompt)) for prompt in ("good", "bad")]
    while len(rig.batcher) < 2:
        threading.Event().wait(0.01)
    rig.engine.go.set()

    assert isinstance(first.result(5), GeneratedImage)
    good, bad = (future.result(10) for future in asked)
    assert isinstance(good, GeneratedImage)
    assert isinstance(bad, ImageFailure)


def test_an_engine_that_fails_is_given_the_image_again(rig: Rig) -> None:
    passing = engine_failure(FailureCode.OUT_OF_MEMORY, retryable=True)
    rig.engine.misbehave = [passing, passing]

    assert isinstance(rig.make(), GeneratedImage)
    assert len(rig.engine.batches) == 3


@pytest.mark.parametrize(
    ("code", "retryable", "turns"),
    [
        (FailureCode.OUT_OF_MEMORY, True, 3),
        (FailureCode.PROVIDER_FAILED, True, 3),
        (FailureCode.PROVIDER_FAILED, False, 1),
        (FailureCode.PROVIDER_RATE_LIMITED, True, 1),  # its engine has waited already
        (FailureCode.CONTENT_REFUSED, False, 1),
    ],
)
def test_but_not_for_ever(rig: Rig, code: FailureCode, retryable: bool, turns: int) -> None:
    rig.engine.misbehave = [engine_failure(code, retryable=retryable)] * 9

    failure = rig.fails()

    assert (failure.code, failure.retryable, failure.message) == (code, retryable, "plain words")
    assert len(rig.engine.batches) == turns


def test_an_upload_is_tried_again_without_making_the_image_again(rig: Rig) -> None:
    rig.storage.script([Answer(500), Answer(reset=True), Answer(200)])

    assert isinstance(rig.make(), GeneratedImage)
    assert len(rig.engine.batches) == 1


def test_an_upload_that_is_refused_is_a_failure(rig: Rig) -> None:
    rig.storage.script([Answer(403)])

    assert rig.fails().code is FailureCode.UPLOAD_EXPIRED


def test_a_canceled_job_is_not_begun(rig: Rig) -> None:
    asked = rig.message()
    rig.signals.end(asked.job_id, asked.run, [], may_wait=True)

    assert rig.fails(asked).code is FailureCode.CANCELED
    assert rig.engine.batches == []


def test_a_canceled_image_stops_within_a_step(rig: Rig) -> None:
    rig.engine.steps, rig.engine.step_s = 200, 0.05
    asked = rig.message()
    making = rig.pool.submit(rig.fails, asked)
    assert rig.engine.begun.wait(5)
    rig.signals.end(asked.job_id, asked.run, [], may_wait=True)

    assert making.result(2).code is FailureCode.CANCELED
    assert rig.storage.seen == []


def test_a_canceled_image_does_not_wait_for_its_turn(rig: Rig) -> None:
    rig.engine.go.clear()
    blocking = rig.pool.submit(rig.make, rig.message(width=128))
    assert rig.engine.begun.wait(5)
    asked = rig.message()
    waiting = rig.pool.submit(rig.fails, asked)
    while not len(rig.batcher):
        threading.Event().wait(0.01)
    rig.signals.end(asked.job_id, asked.run, [], may_wait=True)

    assert waiting.result(2).code is FailureCode.CANCELED
    rig.engine.go.set()
    assert isinstance(blocking.result(5), GeneratedImage)


def test_the_deadline_ends_the_waiting_and_the_work(rig: Rig) -> None:
    rig.engine.steps, rig.engine.step_s = 200, 0.05
    asked = rig.message(deadline=datetime.now(UTC) + timedelta(seconds=0.4))

    failure = rig.fails(asked)

    assert (failure.code, failure.retryable) == (FailureCode.DEADLINE_EXCEEDED, True)
    rig.engine.steps = 0
    assert isinstance(rig.make(), GeneratedImage)  # the engine was free soon


def test_progress_reaches_the_store(rig: Rig) -> None:
    rig.engine.steps, rig.engine.step_s = 20, 0.05
    asked = rig.message(index=2)

    rig.make(asked)

    (fraction,) = rig.signals.progress([asked.job_id])[asked.job_id].items()
    assert fraction[0] == 2
    assert 0 < fraction[1] <= 1


def test_what_waits_is_handed_back_when_the_node_leaves_and_its_attempt_too(rig: Rig) -> None:
    rig.engine.go.clear()
    begun = rig.pool.submit(rig.make, rig.message(width=128))
    assert rig.engine.begun.wait(5)
    asked = rig.message()
    waiting = rig.pool.submit(rig.make, asked)
    while not len(rig.batcher):
        threading.Event().wait(0.01)

    rig.batcher.close()

    with pytest.raises(Draining):
        waiting.result(5)
    assert rig.signals.receive(asked.job_id, asked.image_id, asked.run).number == 1
    assert rig.signals.receive(asked.job_id, asked.image_id, asked.run).kept_result is None
    assert asked.image_id not in {start.image_id for start in rig.heard.starts}  # it would seem to be in hand
    rig.engine.go.set()
    assert isinstance(begun.result(5), GeneratedImage)


def test_what_is_begun_is_handed_back_when_the_node_must_leave_at_once(rig: Rig) -> None:
    rig.engine.steps, rig.engine.step_s = 200, 0.05
    making = rig.pool.submit(rig.make, rig.message())
    assert rig.engine.begun.wait(5)

    rig.batcher.close()
    rig.watch.drop_all()

    with pytest.raises(Draining):
        making.result(5)
    assert rig.heard.ends == []


def test_images_are_made_while_the_store_is_away(rig_without_store: Rig) -> None:
    results = [rig_without_store.make() for _ in range(3)]

    assert all(isinstance(result, GeneratedImage) for result in results)


def test_a_kept_result_of_another_version_is_no_obstacle(rig: Rig) -> None:
    asked = rig.message()
    rig.signals.keep_results([(asked.image_id, asked.run, '{"kind": "other"}')])

    assert isinstance(rig.make(asked), GeneratedImage)

"""The engine thread survives its engine, and says so when it can't."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

import pytest
from PIL import Image

from contract.messages import FailureCode
from gpu_worker.batcher import Batcher, Draining, EngineDied, Waiting
from gpu_worker.engine_thread import EngineThread
from gpu_worker.engines.base import EngineLost, Failure, ImageRequest, Outcome, Picture
from gpu_worker.vigil import Vigil
from tests.gpu_worker.messages import JOB_A, request
from tests.gpu_worker.solid_engine import SolidEngine


class NoWatch:
    def progress(self, request_id: str, fraction: float) -> None: ...

    def preview(self, request_id: str, jpeg: bytes) -> None: ...

    def canceled(self, request_id: str) -> bool:
        return False


class Rig:
    def __init__(self) -> None:
        self.engine = SolidEngine()
        self.batcher = Batcher(self.engine, window_s=0, crowd=4)
        self.died = threading.Event()
        self.thread = EngineThread(self.engine, self.batcher, NoWatch(), self.died.set)

    def outcome(self, prompt: str = "p") -> Outcome:
        return self.batcher.submit(request(prompt), JOB_A).result(timeout=60).outcome


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.thread.start()
    yield rig
    rig.engine.go.set()
    rig.batcher.close()
    rig.thread.join(timeout=60)
    assert not rig.thread.is_alive()


def test_pictures_come_back_from_the_one_thread(rig: Rig) -> None:
    outcomes = [rig.outcome() for _ in range(3)]

    assert all(isinstance(outcome, Picture) for outcome in outcomes)
    assert rig.engine.threads == {"engine"}


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (RuntimeError("vendor text"), FailureCode.ENGINE_FAILED),
        (SystemExit(3), FailureCode.ENGINE_FAILED),
        (KeyboardInterrupt(), FailureCode.ENGINE_FAILED),
        (MemoryError(), FailureCode.OUT_OF_MEMORY),
    ],
)
def test_what_an_engine_raises_fails_its_batch_only(
    rig: Rig, raised: BaseException, code: FailureCode
) -> None:
    def fail(batch: Sequence[ImageRequest]) -> list[Outcome]:
        raise raised

    rig.engine.misbehave = [fail]

    failure = rig.outcome()

    assert isinstance(failure, Failure)
    assert (failure.code, failure.retryable) == (code, True)
    assert "vendor" not in failure.message
    assert isinstance(rig.outcome(), Picture)


def test_broken_promises_of_an_engine_are_failures(rig: Rig) -> None:
    wrong_size = Picture(Image.new("RGB", (1, 1)))
    wrong_mode = Picture(Image.new("L", (64, 48)))
    promises: list[list[Outcome]] = [[], [wrong_size], [wrong_mode], [wrong_size, wrong_size]]
    rig.engine.misbehave = [lambda _, outcomes=outcomes: outcomes for outcomes in promises]  # type: ignore[misc]

    outcomes = [rig.outcome() for _ in promises]

    assert all(isinstance(o, Failure) and o.code == FailureCode.ENGINE_FAILED for o in outcomes)


def test_nothing_is_kept_alive_by_a_failed_batch_or_a_served_one(rig: Rig) -> None:
    class Tensor:
        pass

    kept: list[weakref.ref[object]] = []

    def fail(batch: Sequence[ImageRequest]) -> list[Outcome]:
        tensor = Tensor()
        kept.append(weakref.ref(tensor))
        raise RuntimeError(tensor)

    rig.engine.misbehave = [fail]
    rig.outcome()
    picture = rig.outcome()
    assert isinstance(picture, Picture)
    image = weakref.ref(picture.image)
    del picture
    gc.collect()

    assert kept[0]() is None
    assert image() is None


def test_a_dead_engine_thread_says_so_and_hands_back_what_it_held() -> None:
    rig = Rig()

    def broken() -> list[Waiting] | None:
        batch = Batcher.next_batch(rig.batcher)
        rig.thread._in_work = batch or []
        raise AssertionError("a defect of ours")

    rig.batcher.next_batch = broken  # type: ignore[method-assign]
    rig.thread.start()
    future = rig.batcher.submit(request(), JOB_A)

    assert isinstance(future.exception(timeout=60), Draining)
    assert rig.died.wait(5)


def test_a_lost_engine_ends_the_thread_and_its_images_know_that_they_may_be_why(rig: Rig) -> None:
    def lose(batch: Sequence[ImageRequest]) -> list[Outcome]:
        raise EngineLost("an illegal memory access")

    rig.engine.misbehave = [lose]
    future = rig.batcher.submit(request(), JOB_A)

    assert isinstance(future.exception(timeout=60), EngineDied)
    assert rig.died.wait(5)
    rig.thread.join(timeout=60)
    assert not rig.thread.is_alive()


def test_silence_is_counted_amid_a_batch_only(rig: Rig) -> None:
    assert rig.thread.silent_for() == 0
    rig.engine.go.clear()
    future = rig.batcher.submit(request(), JOB_A)
    assert rig.engine.begun.wait(5)
    time.sleep(0.2)

    assert 0.1 < rig.thread.silent_for() < 5
    rig.engine.go.set()
    future.result(5)
    while rig.thread.silent_for():
        time.sleep(0.01)


def test_the_vigil_speaks_once_when_the_engine_is_silent_for_too_long() -> None:
    silence, stalls = [0.0], list[float]()
    vigil = Vigil(lambda: silence[0], 0.2, lambda: stalls.append(silence[0]))
    vigil.start()
    time.sleep(0.3)
    assert stalls == []

    silence[0] = 0.3
    vigil.join(timeout=60)

    assert stalls == [0.3]
    assert not vigil.is_alive()


def test_the_engine_is_closed_at_the_end(rig: Rig) -> None:
    rig.batcher.close()
    rig.thread.join(timeout=60)

    assert rig.engine.closed

"""The sketch engine as a simulator: slow where it is told to be, and with faults, amid the picture."""

import os
import signal
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NoReturn

from contract.messages import ModelCard
from gpu_worker.engines.base import EngineState, ImageRequest, Outcome, Watch
from gpu_worker.engines.sketch.engine import SketchEngine
from gpu_worker.faults import Fault, Faults

AMID = 0.5  # progress at which a fault strikes
SLOW_S = 0.1  # what jitter and slowness are measured by where no delay is set


class SimulatedFailure(Exception):
    """The engine failed because it was told to."""


class Simulator:
    """A `SketchEngine`, but for its faults."""

    name = SketchEngine.name

    def __init__(self, faults: Faults, *, delay_s: float = 0.0) -> None:
        """`delay_s` is spent on each image beyond its work; jitter and slowness make it longer."""
        self._faults = faults
        self._delay_s = delay_s
        self._painter = SketchEngine()
        self.device = self._painter.device

    def models(self) -> Sequence[ModelCard]:
        """As `SketchEngine`."""
        return self._painter.models()

    def state(self) -> EngineState:
        """As `SketchEngine`."""
        return self._painter.state()

    def prepare(self, model: str) -> bool:
        """As `SketchEngine`."""
        return self._painter.prepare(model)

    def batch_key(self, request: ImageRequest) -> Hashable:
        """As `SketchEngine`."""
        return self._painter.batch_key(request)

    def max_batch(self, key: Hashable) -> int:
        """As `SketchEngine`."""
        return self._painter.max_batch(key)

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        """One outcome each, in order. May raise, hang, or end the process: that is what it is for."""
        return [outcome for request in batch for outcome in self._generate(request, watch)]

    def close(self) -> None:
        """As `SketchEngine`."""
        self._painter.close()

    def _generate(self, request: ImageRequest, watch: Watch) -> list[Outcome]:
        key = (request.prompt, request.seed, attempt_of(request))
        fault = self._faults.met(*key)
        longer = self._faults.slowness(*key) - 1
        extra_s = longer * (self._delay_s or SLOW_S)
        painter = self._painter.with_delay(self._delay_s + extra_s)
        strike = _STRIKES.get(fault) if fault else None
        return painter.generate([request], _Striking(watch, strike) if strike else watch)


def attempt_of(request: ImageRequest) -> str:
    """Run, attempt and turn, as they stand behind the image in a request's id."""
    return request.id.partition(":")[2]


class _Striking:
    """A watch that strikes once half of the picture is done."""

    def __init__(self, watch: Watch, strike: Callable[[], NoReturn]) -> None:
        self._watch = watch
        self._strike = strike

    def progress(self, request_id: str, fraction: float) -> None:
        self._watch.progress(request_id, fraction)
        if fraction >= AMID:
            self._strike()

    def preview(self, request_id: str, jpeg: bytes) -> None:
        self._watch.preview(request_id, jpeg)

    def canceled(self, request_id: str) -> bool:
        return self._watch.canceled(request_id)


def _run_out_of_memory() -> NoReturn:
    raise MemoryError("simulated")


def _fail() -> NoReturn:
    raise SimulatedFailure


def _crash() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    _hang()  # until the signal has come


def _hang() -> NoReturn:
    while True:
        time.sleep(3600)


_STRIKES: dict[Fault, Callable[[], NoReturn]] = {
    "out_of_memory": _run_out_of_memory,
    "engine_failed": _fail,
    "crash": _crash,
    "hang": _hang,
}

"""Forms batches: requests that may share one call of the engine, fair among jobs and models."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from gpu_worker.engines.base import Engine, ImageRequest, Outcome

PATIENCE_S = 5.0  # so long a model that is not loaded waits for one that is
JOBS_TO_REMEMBER = 1000
LOOK_AGAIN_S = 0.1  # whether a model has become ready to be loaded


class Draining(Exception):
    """The node is leaving: this request was not finished here and belongs to another node."""


class EngineDied(Draining):
    """The same, and perhaps because of it."""


@dataclass(frozen=True)
class Served:
    """What the engine made of one request, and the time it took."""

    outcome: Outcome
    begun_at: float  # time.monotonic()
    took_s: float


@dataclass(frozen=True)
class Waiting:
    """A request in the line, and the future that its outcome will be put into."""

    request: ImageRequest
    job_id: UUID
    since: float  # time.monotonic()
    alone: bool = False
    on_begin: Callable[[], None] = lambda: None
    future: "Future[Served]" = field(default_factory=Future)


class Line:
    """The requests of one batch key: the jobs take turns, within a job the first comes first."""

    def __init__(self, model: str, cap: Callable[[], int]) -> None:
        self.model = model
        self.cap = cap  # requests per batch: it is known better once the model has been tried
        self._jobs: dict[UUID, deque[Waiting]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def append(self, waiting: Waiting) -> None:
        self._jobs.setdefault(waiting.job_id, deque()).append(waiting)

    def since(self, served: Mapping[UUID, float] = MappingProxyType({})) -> float:
        """Since when a job of this line waits for its turn: since it came, or since it was last `served`.

        The line must not be empty.
        """
        return min(max(job[0].since, served.get(job_id, 0.0)) for job_id, job in self._jobs.items())

    def take(self, count: int) -> list[Waiting]:
        """Up to `count` requests, one of each job in turn; who was served goes to the end."""
        taken: list[Waiting] = []
        while self._jobs and len(taken) < count:
            job_id = next(iter(self._jobs))
            job = self._jobs.pop(job_id)
            taken.append(job.popleft())
            if job:
                self._jobs[job_id] = job
        return taken


class Batcher:
    """Many task threads submit, the one engine thread takes.

    `crowd` is how many requests can wait at the most (the node's concurrency): once they are all here,
    waiting for more is of no use.
    """

    def __init__(
        self, engine: Engine, *, window_s: float, crowd: int, patience_s: float = PATIENCE_S
    ) -> None:
        self._engine = engine
        self._window_s = window_s
        self._crowd = crowd
        self._patience_s = patience_s
        self._lines: dict[Hashable, Line] = {}
        self._changed_model_at = float("-inf")
        self._served: OrderedDict[UUID, float] = OrderedDict()  # when each job had its last turn
        self._changed = threading.Condition()
        self.closed = threading.Event()

    def submit(
        self,
        request: ImageRequest,
        job_id: UUID,
        *,
        alone: bool = False,
        on_begin: Callable[[], None] = lambda: None,
    ) -> "Future[Served]":
        """Puts a request in its line. `alone`: in a batch of its own, for it may harm its neighbours.

        `on_begin` is called by the engine's thread right before it begins: it must be quick, and not raise.
        Raises `Draining` once the batcher is closed; the future ends in it if that happens later.
        A future that is canceled before its batch begins takes its request out of the line.
        """
        key = ("alone", request.id) if alone else ("shared", self._engine.batch_key(request))
        waiting = Waiting(request, job_id, time.monotonic(), alone, on_begin)
        self._engine.prepare(request.model)
        with self._changed:
            if self.closed.is_set():
                raise Draining
            self._lines.setdefault(key, Line(request.model, lambda: self._cap(key))).append(waiting)
            self._changed.notify()
        return waiting.future

    def next_batch(self) -> list[Waiting] | None:
        """Blocks until a batch is due; its futures are running then. None once the batcher is closed."""
        with self._changed:
            while not self.closed.is_set():
                key = self._choose()
                pause = self._worth_waiting(key)
                if pause != 0:
                    self._changed.wait(pause)
                elif key is not None and (batch := self._take(key)):
                    return batch
        return None

    def close(self) -> None:
        """Ends the taking and hands back all that waits: those futures end in `Draining`."""
        with self._changed:
            self.closed.set()
            handed_back = [waiting for line in self._lines.values() for waiting in line.take(len(line))]
            self._lines.clear()
            self._changed.notify_all()
        for waiting in handed_back:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(Draining())

    def __len__(self) -> int:
        with self._changed:
            return sum(map(len, self._lines.values()))

    def _cap(self, key: tuple[str, Hashable]) -> int:
        return 1 if key[0] == "alone" else max(1, self._engine.max_batch(key[1]))

    def _choose(self) -> Hashable | None:
        """The line whose turn it is: the one with the job that has waited longest since its last turn, unless
        its model isn't loaded and another's is.

        A model that is still being made ready holds up nobody. One that takes another's place on the device
        stays for as long as the others have patience: else two models in demand would change places with
        every batch.
        """
        lines = self._lines
        by_age = sorted(lines, key=lambda key: (lines[key].since(self._served), lines[key].since()))
        ready = [key for key in by_age if self._engine.prepare(self._lines[key].model)]
        if not ready:
            return None
        loaded = set(self._engine.state().loaded)
        warm = next((key for key in ready if self._lines[key].model in loaded), None)
        oldest = ready[0]
        if warm is None or self._lines[oldest].model in loaded or self._has_waited_enough(oldest):
            return oldest
        return warm

    def _has_waited_enough(self, key: Hashable) -> bool:
        since = max(self._lines[key].since(), self._changed_model_at)
        return time.monotonic() - since > self._patience_s

    def _worth_waiting(self, key: Hashable | None) -> float | None:
        """Seconds until the next look; 0: the batch is due. None: there is nothing to look at."""
        if key is None:
            return LOOK_AGAIN_S if self._lines else None
        line = self._lines[key]
        everybody_is_here = sum(map(len, self._lines.values())) >= self._crowd
        if len(line) >= line.cap() or everybody_is_here:
            return 0
        return max(line.since() + self._window_s - time.monotonic(), 0)

    def _take(self, key: Hashable) -> list[Waiting]:
        """The next batch of a line, less those that nobody waits for any more."""
        line = self._lines[key]
        if line.model not in self._engine.state().loaded:
            self._changed_model_at = time.monotonic()
        taken = line.take(line.cap())
        if not len(line):
            del self._lines[key]
        for waiting in taken:
            self._served[waiting.job_id] = time.monotonic()
            self._served.move_to_end(waiting.job_id)
        while len(self._served) > JOBS_TO_REMEMBER:
            self._served.popitem(last=False)
        return [waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()]

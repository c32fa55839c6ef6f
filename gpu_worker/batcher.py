"""Forms batches: requests that may share one call of the engine, fair among jobs and models."""

import threading
import time
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from uuid import UUID

from gpu_worker.engines.base import Engine, ImageRequest, Outcome

PATIENCE_S = 5.0  # so long a model that is not loaded waits for one that is


class Draining(Exception):
    """The node is leaving: this request was not finished here and belongs to another node."""


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
    future: "Future[Served]" = field(default_factory=Future)


class Line:
    """The requests of one batch key: the jobs take turns, within a job the first comes first."""

    def __init__(self, model: str, cap: int) -> None:
        self.model = model
        self.cap = cap  # requests per batch
        self._jobs: dict[UUID, deque[Waiting]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def append(self, waiting: Waiting) -> None:
        self._jobs.setdefault(waiting.job_id, deque()).append(waiting)

    def since(self) -> float:
        """When the oldest request came. The line must not be empty."""
        return min(job[0].since for job in self._jobs.values())

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
        self._changed = threading.Condition()
        self.closed = threading.Event()

    def submit(self, request: ImageRequest, job_id: UUID, *, alone: bool = False) -> "Future[Served]":
        """Puts a request in its line. `alone`: in a batch of its own, for it may harm its neighbours.

        Raises `Draining` once the batcher is closed; the future ends in it if that happens later.
        A future that is canceled before its batch begins takes its request out of the line.
        """
        key = ("alone", request.id) if alone else ("shared", self._engine.batch_key(request))
        cap = 1 if alone else max(1, self._engine.max_batch(key[1]))
        waiting = Waiting(request, job_id, time.monotonic())
        with self._changed:
            if self.closed.is_set():
                raise Draining
            self._lines.setdefault(key, Line(request.model, cap)).append(waiting)
            self._changed.notify()
        return waiting.future

    def next_batch(self) -> list[Waiting] | None:
        """Blocks until a batch is due; its futures are running then. None once the batcher is closed."""
        with self._changed:
            while not self.closed.is_set():
                key = self._choose()
                pause = self._worth_waiting(key) if key is not None else None
                if key is None or pause:
                    self._changed.wait(pause)
                elif batch := self._take(key):
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

    def _choose(self) -> Hashable | None:
        """The line whose turn it is: the oldest, unless its model isn't loaded and another's is."""
        if len(self._lines) < 2:
            return next(iter(self._lines), None)
        by_age = sorted(self._lines, key=lambda key: self._lines[key].since())
        oldest = by_age[0]
        if time.monotonic() - self._lines[oldest].since() > self._patience_s:
            return oldest
        loaded = set(self._engine.loaded())
        return next((key for key in by_age if self._lines[key].model in loaded), oldest)

    def _worth_waiting(self, key: Hashable) -> float | None:
        """Seconds for which this batch should be held open; None: not at all."""
        line = self._lines[key]
        everybody_is_here = sum(map(len, self._lines.values())) >= self._crowd
        if len(line) >= line.cap or everybody_is_here:
            return None
        left = line.since() + self._window_s - time.monotonic()
        return left if left > 0 else None

    def _take(self, key: Hashable) -> list[Waiting]:
        """The next batch of a line, less those that nobody waits for any more."""
        line = self._lines[key]
        taken = line.take(line.cap)
        if not len(line):
            del self._lines[key]
        return [waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()]

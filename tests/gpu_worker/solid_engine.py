"""A real, small engine: pictures of one colour, as fast or slow, or as badly, as a test wants them."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import get_args

from PIL import Image

from contract.messages import Device, FailureCode, ModelCard, Task
from gpu_worker.engines.base import EngineState, Failure, ImageRequest, Outcome, Picture, Watch

CANCELED = Failure(FailureCode.CANCELED, "The job was canceled.", retryable=False)


class SolidEngine:
    name = "solid"

    def __init__(self, *, cap: int = 4, steps: int = 0, step_s: float = 0.02) -> None:
        self.device = Device(kind="cpu", name="test")
        self.cap = cap
        self.steps = steps
        self.step_s = step_s
        self.go = threading.Event()  # cleared: the engine holds its batch
        self.go.set()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []  # prompts
        self.requests: list[ImageRequest] = []
        self.threads: set[str] = set()
        self.misbehave: list[Callable[[Sequence[ImageRequest]], list[Outcome] | None]] = []  # one per call
        self.warm: tuple[str, ...] = ("solid",)
        self.not_ready: set[str] = set()
        self.closed = False

    def models(self) -> Sequence[ModelCard]:
        tasks = get_args(Task)
        return [
            ModelCard(name=name, engine=self.name, min_size=16, tasks=tasks) for name in ("solid", "other")
        ]

    def state(self) -> EngineState:
        return EngineState(loaded=self.warm)

    def prepare(self, model: str) -> bool:
        return model not in self.not_ready

    def batch_key(self, request: ImageRequest) -> Hashable:
        return request.model, request.width, request.height

    def max_batch(self, key: Hashable) -> int:
        return self.cap

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        self.requests += batch
        self.batches.append([request.prompt for request in batch])
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        self.go.wait(10)
        if self.misbehave:
            outcomes = self.misbehave.pop(0)(batch)
            if outcomes is not None:
                return outcomes
        return [self._one(request, watch) for request in batch]

    def close(self) -> None:
        self.closed = True

    def _one(self, request: ImageRequest, watch: Watch) -> Outcome:
        for step in range(self.steps):
            if watch.canceled(request.id):
                return CANCELED
            time.sleep(self.step_s)
            watch.progress(request.id, (step + 1) / self.steps)
        size = (request.width, request.height)
        return Picture(Image.new("RGB", size, (request.seed % 256, 90, 160)), {"engine": self.name})

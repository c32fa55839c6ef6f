"""Our own processes, but for the pixels: `python -m scripts.benchmarks.queue.ours worker|nodes N`."""

import os
import signal
import sys
import threading
import time
from collections.abc import Hashable, Sequence

from PIL import Image

from backend import images, worker
from backend.images import Prepared, Thumbnail
from backend.llm.base import PromptRequest
from backend.llm.template import TemplateLLM
from backend.settings import get_settings as backend_settings
from contract.messages import Device, FailureCode, ModelCard
from gpu_worker import finisher, node
from gpu_worker.engines.base import EngineState, Failure, ImageRequest, Outcome, Picture, Watch
from gpu_worker.registry import ENGINES, Registered
from gpu_worker.settings import get_settings as node_settings
from scripts.benchmarks.queue.fixed import ORIGINAL, THUMBNAIL

MODEL = "nothing"
SIDE = 64  # pixels, of what is never looked at
TAKES = "BENCH_TAKES_S"

_CARD = ModelCard(name=MODEL, engine="nothing", default_width=SIDE, default_height=SIDE)
_IMAGE = Image.new("RGB", (SIDE, SIDE))


class NullEngine:
    """Makes nothing of anything, in as many seconds as it is told to."""

    name = "nothing"

    def __init__(self, takes_s: float) -> None:
        self.device = Device(kind="cpu", name="none")
        self._takes_s = takes_s

    def models(self) -> Sequence[ModelCard]:
        return [_CARD]

    def state(self) -> EngineState:
        return EngineState(loaded=(MODEL,))

    def prepare(self, model: str) -> bool:  # noqa: ARG002 - the port's
        return True

    def batch_key(self, request: ImageRequest) -> Hashable:  # noqa: ARG002
        return MODEL

    def max_batch(self, key: Hashable) -> int:  # noqa: ARG002
        return 1 if self._takes_s else 16

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        until = time.monotonic() + self._takes_s
        while (left := until - time.monotonic()) > 0:
            if watch.canceled(batch[0].id):
                return [Failure(FailureCode.CANCELED, "Canceled.", retryable=False)]
            watch.progress(batch[0].id, 1 - left / self._takes_s)
            time.sleep(min(left, 0.25))
        return [Picture(_IMAGE) for _ in batch]

    def close(self) -> None:
        """There is nothing to give back."""


def run_worker() -> None:
    """The CPU worker, whose prompts and thumbnails are there already."""

    def prepare(_data: bytes, sizes: Sequence[int], fmt: str, **_: int) -> Prepared:
        made = [Thumbnail(size, size, f"image/{fmt}", THUMBNAIL) for size in sorted(sizes)]
        return Prepared(SIDE, SIDE, "image/webp", made, "L00000fQfQfQfQfQfQfQfQfQfQfQ", "#808080")

    def write_prompts(self: TemplateLLM, request: PromptRequest) -> list[str]:  # noqa: ARG001
        return [f"{request.message}, picture {index}" for index in range(request.count)]

    images.prepare = prepare  # type: ignore[assignment]
    TemplateLLM.write_prompts = write_prompts  # type: ignore[method-assign]
    worker.run_worker(backend_settings(), with_beat=True)


def run_node(name: str) -> int:
    """A node, whose files are there already."""
    vars(finisher)["encode"] = lambda *_: ORIGINAL
    takes_s = float(os.environ.get(TAKES, "0"))
    ENGINES["nothing"] = Registered(
        lambda _: NullEngine(takes_s), lambda _: [], concurrency=1 if takes_s else 16
    )
    settings = node_settings().model_copy(update={"node_name": name})
    return node.serve(settings, "nothing", "cpu")


def run_nodes(count: int) -> int:
    """So many, each in a process of its own; forked, because to import all of it takes long."""
    children = []
    for number in range(count):
        if (pid := os.fork()) == 0:
            os._exit(run_node(f"bench-{number}"))
        children.append(pid)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    over.wait()
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        run_worker()
    else:
        sys.exit(run_nodes(int(sys.argv[2])))

"""The engine: one card, any batch, one picture after another."""

import platform
import time
from collections.abc import Hashable, Iterator, Sequence

from contract.messages import Device, FailureCode, JsonScalar, ModelCard
from gpu_worker.engines.base import EngineState, Failure, ImageRequest, Outcome, Picture, Watch
from gpu_worker.engines.sketch.canvas import Canvas
from gpu_worker.engines.sketch.dice import Dice
from gpu_worker.engines.sketch.finish import finish
from gpu_worker.engines.sketch.lettering.fonts import FontStack
from gpu_worker.engines.sketch.lettering.setting import set_title
from gpu_worker.engines.sketch.reading import read
from gpu_worker.engines.sketch.scenes import SCENES
from gpu_worker.engines.sketch.scenes.view import View

MODEL = "sketch"
VERSION = "1"  # one more whenever the same request gives other pixels

_CARD = ModelCard(
    name=MODEL,
    engine="sketch",
    description="Composes a picture from the prompt's words and the seed. Needs no GPU and no weights.",
    can_set_title=True,
)
_PATIENCE_S = 0.05  # the longest that a cancel goes unseen while the delay runs
_PAINTED, _FINISHED = 0.8, 0.9  # progress when the scene is done, and when its surface is
_CANCELED = Failure(FailureCode.CANCELED, "The image was canceled.", retryable=False)


class SketchEngine:
    """Paints with Pillow, numpy and chance. The same request gives the same pixels, always."""

    name = "sketch"

    def __init__(self, *, delay_s: float = 0.0, fonts: FontStack | None = None) -> None:
        """`delay_s` is spent on each image beyond its work, to rehearse slow models.

        `fonts` default to those at hand: packaged ones first, then the system's.
        """
        self.device = Device(kind="cpu", name=platform.processor() or platform.machine() or "cpu")
        self._delay_s = delay_s
        self._fonts = fonts or FontStack.usual()

    def with_delay(self, seconds: float) -> "SketchEngine":
        """The same engine with another delay."""
        return SketchEngine(delay_s=seconds, fonts=self._fonts)

    def models(self) -> Sequence[ModelCard]:
        """The one model, from 64 to 2048 pixels a side."""
        return [_CARD]

    def state(self) -> EngineState:
        """There is nothing to load."""
        return EngineState(loaded=(MODEL,))

    def prepare(self, model: str) -> bool:  # noqa: ARG002 - the port's
        """Always ready."""
        return True

    def batch_key(self, request: ImageRequest) -> Hashable:
        """Pictures of one size go together."""
        return request.model, request.width, request.height

    def max_batch(self, key: Hashable) -> int:  # noqa: ARG002 - the port's
        """One: nothing is gained by painting several, and alone each is seen as soon as it is done."""
        return 1

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        """One outcome each, in order."""
        return [self._outcome(request, watch) for request in batch]

    def close(self) -> None:
        """There is nothing to give back."""

    def _outcome(self, request: ImageRequest, watch: Watch) -> Outcome:
        refusal = _refusal(request)
        if refusal is not None:
            return Failure(FailureCode.INVALID_REQUEST, refusal, retryable=False)
        dice = Dice(VERSION, request.seed, request.prompt)
        view = View(Canvas(request.width, request.height), read(request.prompt, dice), dice)
        made_with = _made_with(view)
        try:
            done = 0.0
            for share in self._steps(view, request, made_with):
                if not self._wait(self._delay_s * (share - done), request.id, watch):
                    return _CANCELED
                done = share
                watch.progress(request.id, share)
        except MemoryError:
            return Failure(
                FailureCode.OUT_OF_MEMORY, "The node has too little memory for this size.", retryable=True
            )
        return Picture(view.canvas.image(), made_with)

    def _steps(self, view: View, request: ImageRequest, made_with: dict[str, JsonScalar]) -> Iterator[float]:
        """Does the work, and yields the share of it that is done."""
        yield 0.0
        for share in SCENES[view.brief.scene](view):
            yield share * _PAINTED
        finish(view)
        yield _FINISHED
        if request.title:
            became = set_title(view, request.title, self._fonts)
            if became is not None:
                made_with["title"] = became
        yield 1.0

    def _wait(self, seconds: float, request_id: str, watch: Watch) -> bool:
        """Waits so long; False as soon as nobody wants the image any more."""
        until = time.monotonic() + seconds
        while not watch.canceled(request_id):
            left = until - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _PATIENCE_S))
        return False


def _refusal(request: ImageRequest) -> str | None:
    """What this model can't do, in words for the client."""
    if request.model != MODEL:
        return f"This engine has no model named {request.model!r}."
    for side in (request.width, request.height):
        if not _CARD.min_size <= side <= _CARD.max_size or side % _CARD.size_multiple:
            return (
                f"Sides are multiples of {_CARD.size_multiple}, {_CARD.min_size} to {_CARD.max_size} pixels."
            )
    return None


def _made_with(view: View) -> dict[str, JsonScalar]:
    return {
        "engine": SketchEngine.name,
        "engine_version": VERSION,
        "composition": view.brief.scene,
        "palette": view.scheme.palette.name,
        "light": view.scheme.light.name,
        "medium": view.brief.medium,
    }

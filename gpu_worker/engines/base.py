"""The engine protocol: batches of requests in, images out, with progress and cancel.

All calls of one engine come from one thread, the engine thread. An engine is given values, it reads no
settings and knows nothing of queues, storage or Celery.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from contract.messages import Device, FailureCode, JsonScalar, LoraUse, ModelCard, Task


@dataclass(frozen=True)
class ImageRequest:
    """One image to be made."""

    id: str  # of this attempt; progress and cancel refer to it
    model: str
    prompt: str
    width: int  # pixels
    height: int  # pixels
    seed: int  # 0 <= seed < 2**32
    negative_prompt: str | None = None
    title: str | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    loras: tuple[LoraUse, ...] = ()
    task: Task = "text-to-image"
    reference: Image.Image | None = None  # RGB, of any size
    mask: Image.Image | None = None  # L, of any size: white is made anew
    strength: float | None = None  # 0 < strength <= 1
    reproducible: bool = False  # bit for bit, whatever else is in the batch
    revision: str | None = None  # None: whichever there is
    preview: bool = False  # whether `Watch.preview` is of use


@dataclass(frozen=True)
class Spent:
    """Seconds that one image, or the batch that it was made in, took in the engine."""

    load_s: float = 0.0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Picture:
    """An image that was made."""

    image: Image.Image  # mode RGB or RGBA, exactly the size that was asked for
    made_with: Mapping[str, JsonScalar] = field(default_factory=dict)
    spent: Spent | None = None  # None: the engine doesn't tell


@dataclass(frozen=True)
class Failure:
    """An image that could not be made; its neighbours in the batch are not touched by it."""

    code: FailureCode
    message: str  # for the client: no vendor text, no secret, no path
    retryable: bool


Outcome = Picture | Failure

CANCELED = Failure(FailureCode.CANCELED, "The job was canceled.", retryable=False)


class Watch(Protocol):
    """What an engine reports to, and asks, while it works. All calls are cheap: make them each step."""

    def progress(self, request_id: str, fraction: float) -> None:
        """This image is `fraction` (0 to 1) done."""
        ...

    def preview(self, request_id: str, jpeg: bytes) -> None:
        """This image looks like this now; for requests with `preview`."""
        ...

    def canceled(self, request_id: str) -> bool:
        """Nobody wants this image any more: drop it and return Failure(CANCELED) for it."""
        ...


@dataclass(frozen=True)
class EngineState:
    """What operators and the batcher want to know of an engine now."""

    loaded: tuple[str, ...]  # aliases of the models that can be served without a cold load
    loading: tuple[str, ...] = ()  # those that are being made ready or loaded
    doing: str | None = None  # in a few words; None: nothing
    memory_used_bytes: int | None = None  # of the device; None: unknown


class EngineLost(Exception):
    """The device is of no more use to this process, which should be ended and started anew."""


class Engine(Protocol):
    """Turns prompts into pixels."""

    name: str
    device: Device

    def models(self) -> Sequence[ModelCard]:
        """What can be asked of this engine."""
        ...

    def state(self) -> EngineState:
        """What it holds and what it is at. Cheap; called from any thread."""
        ...

    def prepare(self, model: str) -> bool:
        """Makes ready, in the background, what a cold load needs (download, read). Called from any thread.

        True: the model is loaded, or now is a good time to load it. False: it is still being made ready,
        and others should go first. One that can't be made ready gives True: `generate` says why.
        """
        ...

    def batch_key(self, request: ImageRequest) -> Hashable:
        """Requests with equal keys may share one call of `generate`. Pure; called from any thread."""
        ...

    def max_batch(self, key: Hashable) -> int:
        """How many requests of this key one call of `generate` takes at the most."""
        ...

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        """One outcome for each request, in order. All requests have the same batch key.

        An image's failure is data (`Failure`). What is raised instead fails the whole batch as
        `engine_failed`, and the engine must be fit for the next call all the same; `EngineLost` says that
        it is not.
        """
        ...

    def close(self) -> None:
        """Gives back the device. Nothing is called afterwards."""
        ...

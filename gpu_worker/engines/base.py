"""The engine protocol: batches of requests in, images out, with progress and cancel.

All calls of one engine come from one thread, the engine thread. An engine is given values, it reads no
settings and knows nothing of queues, storage or Celery.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from contract.messages import Device, FailureCode, JsonScalar, ModelCard


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


@dataclass(frozen=True)
class Picture:
    """An image that was made."""

    image: Image.Image  # mode RGB or RGBA, exactly the size that was asked for
    made_with: Mapping[str, JsonScalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """An image that could not be made; its neighbours in the batch are not touched by it."""

    code: FailureCode
    message: str  # for the client: no vendor text, no secret, no path
    retryable: bool


Outcome = Picture | Failure


class Watch(Protocol):
    """What an engine reports to, and asks, while it works. Both calls are cheap: call them each step."""

    def progress(self, request_id: str, fraction: float) -> None:
        """This image is `fraction` (0 to 1) done."""
        ...

    def canceled(self, request_id: str) -> bool:
        """Nobody wants this image any more: drop it and return Failure(CANCELED) for it."""
        ...


class Engine(Protocol):
    """Turns prompts into pixels."""

    name: str
    device: Device

    def models(self) -> Sequence[ModelCard]:
        """What can be asked of this engine."""
        ...

    def loaded(self) -> Sequence[str]:
        """Aliases of the models that can be served without a cold load. Called from any thread."""
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
        `engine_failed`, and the engine must be fit for the next call all the same.
        """
        ...

    def close(self) -> None:
        """Gives back the device. Nothing is called afterwards."""
        ...

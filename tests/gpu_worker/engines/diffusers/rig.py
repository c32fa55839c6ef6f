"""An engine with tiny models, and a watch over it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from PIL import Image

from contract.messages import Device
from gpu_worker.engines.base import Failure, ImageRequest, Outcome, Picture
from gpu_worker.engines.diffusers.catalog import Defaults, Limits, ModelEntry
from gpu_worker.engines.diffusers.device import this_device
from gpu_worker.engines.diffusers.engine import DiffusersEngine
from gpu_worker.engines.diffusers.hub import as_served
from gpu_worker.engines.diffusers.loading import Loader

CPU = torch.device("cpu")
SIZE = 64  # pixels
STEPS = 4
GUIDANCE = {"sd15": 5.0, "sdxl": 5.0, "sd3": 5.0, "flux": 3.5, "z-image": 0.0, "sana": 4.5, "qwen-image": 4.0}


def entry(alias: str, family: str, folder: Path, **changes: Any) -> ModelEntry:
    """A catalog's entry for a tiny model."""
    fields: dict[str, Any] = {
        "alias": alias,
        "family": family,
        "source": str(folder),
        "license": "none needed",
        "defaults": Defaults(width=SIZE, height=SIZE, steps=STEPS, guidance=GUIDANCE[family]),
        "limits": Limits(min_size=32, max_size=256, batch=4),
    }
    return ModelEntry(**{**fields, **changes})


class Watching:
    """Remembers what it is told; `call_off` decides at each step who is not wanted any more."""

    def __init__(self, call_off: Callable[[str], bool] = lambda _: False) -> None:
        self.fractions: dict[str, list[float]] = defaultdict(list)
        self.previews: dict[str, list[bytes]] = defaultdict(list)
        self._call_off = call_off

    def progress(self, request_id: str, fraction: float) -> None:
        self.fractions[request_id].append(fraction)

    def preview(self, request_id: str, jpeg: bytes) -> None:
        self.previews[request_id].append(jpeg)

    def canceled(self, request_id: str) -> bool:
        return self._call_off(request_id)


class Rig:
    """One engine, on the CPU if nothing else is said."""

    def __init__(
        self,
        *entries: ModelEntry,
        budget: int | None = None,
        cache: Path = Path("/nowhere"),
        device: torch.device = CPU,
    ) -> None:
        served = [_served(one, cache) for one in entries]
        self.loader = Loader(served, cache, device)
        self.engine = DiffusersEngine(served, self.loader, _told(device), device, budget=budget)
        self.model = entries[0].alias

    def request(self, prompt: str = "a lighthouse", **changes: Any) -> ImageRequest:
        fields: dict[str, Any] = {
            "id": str(uuid4()),
            "model": self.model,
            "prompt": prompt,
            "width": SIZE,
            "height": SIZE,
            "seed": 1,
        }
        return ImageRequest(**{**fields, **changes})

    def generate(self, *requests: ImageRequest, watch: Watching | None = None) -> list[Outcome]:
        assert len({self.engine.batch_key(request) for request in requests}) == 1
        return self.engine.generate(requests, watch or Watching())

    def pictures(self, *requests: ImageRequest, watch: Watching | None = None) -> list[Picture]:
        outcomes = self.generate(*requests, watch=watch)
        assert all(isinstance(outcome, Picture) for outcome in outcomes), outcomes
        return [outcome for outcome in outcomes if isinstance(outcome, Picture)]

    def picture(self, prompt: str = "a lighthouse", **changes: Any) -> Picture:
        return self.pictures(self.request(prompt, **changes))[0]

    def failure(self, prompt: str = "a lighthouse", **changes: Any) -> Failure:
        (outcome,) = self.generate(self.request(prompt, **changes))
        assert isinstance(outcome, Failure), outcome
        return outcome

    def close(self) -> None:
        self.engine.close()


def _told(device: torch.device) -> Device:
    """As `opening` asks for it."""
    return Device(kind="cpu", name="CPU") if device.type == "cpu" else this_device()


def _served(one: ModelEntry, cache: Path) -> ModelEntry:
    return as_served(one, cache) if Path(one.source).exists() else one


def same(one: Picture | Image.Image, other: Picture | Image.Image) -> bool:
    """Bit for bit."""
    return _image(one).tobytes() == _image(other).tobytes()


def _image(one: Picture | Image.Image) -> Image.Image:
    return one.image if isinstance(one, Picture) else one


def seeds(rig: Rig, count: int, **changes: Any) -> Sequence[ImageRequest]:
    """Requests that differ in prompt and seed."""
    return [rig.request(f"prompt {number}", seed=number, **changes) for number in range(count)]

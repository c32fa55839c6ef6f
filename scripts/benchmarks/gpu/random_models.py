"""The engine with models that are made at random on their device, and the node process that runs it.

What is left out of a real node: the launcher, and reading files. Nothing is written to the disk.
`python -m scripts.benchmarks.gpu.random_node` serves what the environment asks for.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from gpu_worker.engines.diffusers import families, speed
from gpu_worker.engines.diffusers.catalog import Defaults, Limits, ModelEntry
from gpu_worker.engines.diffusers.device import this_device
from gpu_worker.engines.diffusers.engine import DiffusersEngine
from gpu_worker.engines.diffusers.families.base import FamilyAdapter
from gpu_worker.engines.diffusers.loading import Loader
from gpu_worker.engines.diffusers.loras import Loras
from gpu_worker.engines.diffusers.residency import Resident
from scripts.benchmarks.gpu.architectures import ARCHITECTURES, Architecture, Fewer, made_of

REVISION: Final = "0" * 40


def torch_device() -> torch.device:
    """The GPU, or else the CPU."""
    kind = this_device().kind
    return torch.device("cuda" if kind == "rocm" else kind)


def make_adapter(architecture: Architecture, fewer: Fewer, device: torch.device) -> FamilyAdapter:
    """The model on its device, in the precision that a node would choose."""
    families.quiet()
    with made_of(speed.dtype_of("auto", device), device), torch.inference_mode(mode=False):
        pipe = architecture.build(fewer)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(requires_grad=False)
    return families.FAMILIES[architecture.family](pipe)


def entry(alias: str, *, batch: int, compiled: bool) -> ModelEntry:
    """As a catalog would name it."""
    architecture = ARCHITECTURES[alias]
    return ModelEntry(
        alias=alias,
        family=architecture.family,
        source="/random",
        revision=REVISION,
        license="none needed: random weights",
        defaults=Defaults(
            width=architecture.size,
            height=architecture.size,
            steps=architecture.steps,
            guidance=architecture.guidance,
        ),
        limits=Limits(min_size=16, batch=batch),
        compile=compiled,
        offload="never",
    )


class RandomLoader(Loader):
    """A node's shelf, but for the files: what makes a model fast is the node's own."""

    def __init__(self, entries: Sequence[ModelEntry], device: torch.device, fewer: Fewer) -> None:
        super().__init__(entries, Path("/random"), device)
        self._fewer = fewer

    def find(self, alias: str) -> Path:  # noqa: ARG002  # the port's
        """There is nothing to be found."""
        return Path("/random")

    def load(self, alias: str, folder: Path) -> Resident:  # noqa: ARG002  # the port's
        """Made, in place of read."""
        adapter = make_adapter(ARCHITECTURES[alias], self._fewer, self._device)
        dtype = speed.dtype_of("auto", self._device)
        return Resident(
            entry=self._entries[alias],
            adapter=adapter,
            loras=Loras(adapter.pipe),
            weights=_bytes_of(adapter),
            dtype=speed.dtype_name(dtype),
        )


def make_engine(alias: str, *, batch: int, compiled: bool, fewer: Fewer) -> DiffusersEngine:
    """As `opening.open_engine` makes it."""
    device = torch_device()
    speed.prepare_process(device)
    entries = [entry(alias, batch=batch, compiled=compiled)]
    return DiffusersEngine(entries, RandomLoader(entries, device, fewer), this_device(), device)


def _bytes_of(adapter: FamilyAdapter) -> int:
    parts = [part for part in adapter.pipe.components.values() if isinstance(part, torch.nn.Module)]
    return sum(one.numel() * one.element_size() for part in parts for one in part.parameters())


Wait = Callable[[], None]


def waiting_for(device: torch.device) -> Wait:
    """Returns once the device has done all that it was given."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None

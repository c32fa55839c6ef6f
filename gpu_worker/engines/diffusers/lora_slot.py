"""A place for one LoRA, whose weights are exchanged in place: a compiled model needn't be compiled again."""

from pathlib import Path
from typing import Final

import torch
from diffusers import DiffusionPipeline
from peft.tuners.lora import LoraLayer

from gpu_worker.engines.diffusers import lora_adapters

NAME: Final = "slot"


class LoraSlot:
    """Holds LoRAs that change the denoiser alone. One graph serves them all.

    The first LoRA costs two compilations (its layers are new to the graph, once at work and once at rest),
    those that come after it none, as long as they change no other layers than the first and are of no higher
    rank than there is room for; weights are free.
    """

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self._pipe = pipe
        self._rank = 0
        self._scales: list[tuple[LoraLayer, float]] = []
        self.holds: Path | None = None

    def has_room_for(self, rank: int) -> bool:
        """Whether a LoRA of this rank can come in place of the one that is there."""
        return self.holds is not None and rank <= self._rank

    def put(self, alias: str, path: Path, component: str, count: int, rank: int) -> None:
        """Makes it the LoRA of the slot. Raises as `lora_adapters.load` does; the slot is then empty."""
        if path == self.holds:
            return
        if not (self.has_room_for(rank) and self._swap(path)):
            self.clear()
            self._rank = max(self._rank, _rounded_up(rank))
            self._pipe.enable_lora_hotswap(target_rank=self._rank, check_compiled="ignore")
            lora_adapters.load(self._pipe, alias, path, NAME, {component: count})
        layers = lora_adapters.layers(getattr(self._pipe, component), NAME)
        self._scales = [(layer, float(layer.scaling[NAME])) for layer in layers]
        self.holds = path

    def _swap(self, path: Path) -> bool:
        try:
            lora_adapters.read_into(self._pipe, path, NAME, hotswap=True)
        except (RuntimeError, ValueError):  # it changes other layers than the one before
            return False
        except BaseException:
            self.clear()
            raise
        return True

    def activate(self, component: str, weight: float) -> None:
        """Has it work with this weight, and no other LoRA."""
        self._pipe.disable_lora()
        denoiser = getattr(self._pipe, component)
        denoiser.enable_lora()
        denoiser.set_adapter(NAME)
        for layer, scale in self._scales:
            _fill(layer.scaling[NAME], scale * weight)

    def clear(self) -> None:
        """Takes the LoRA out, if there is one."""
        if self.holds is not None:
            lora_adapters.remove(self._pipe, NAME)
        self.holds, self._scales = None, []


def _fill(scaling: torch.Tensor, value: float) -> None:
    """In place: a number in its stead would be a new graph."""
    scaling.fill_(value)


def _rounded_up(rank: int) -> int:
    """To a power of two: what comes next may be a little larger."""
    return 1 << max(0, rank - 1).bit_length()

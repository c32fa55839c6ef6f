"""LoRAs of one loaded model: exactly those that an image wants, and no trace of them in the next.

Nothing is ever fused: adding to the weights and taking away again leaves a rest.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from diffusers import DiffusionPipeline

from gpu_worker.engines.diffusers import lora_adapters, lora_files
from gpu_worker.engines.diffusers.lora_files import LoraNotUsable
from gpu_worker.engines.diffusers.lora_slot import LoraSlot

__all__ = ["LoraNotUsable", "Loras", "Wanted"]

MAX_LOADED: Final = 8  # adapters that stay loaded, whether in use or not

Wanted = tuple[str, Path, float]  # alias, file, weight


@dataclass(frozen=True)
class _Adapter:
    """A LoRA that was checked against the model."""

    path: Path
    name: str  # as PEFT calls it
    counts: tuple[tuple[str, int], ...]  # component, tensors
    rank: int

    @property
    def denoiser_alone(self) -> str | None:
        """The one component that it changes, where that is the denoiser."""
        names = [component for component, _ in self.counts]
        return names[0] if len(names) == 1 and not names[0].startswith("text_encoder") else None


@dataclass(frozen=True)
class _Use:
    """A LoRA that works in the next image."""

    alias: str
    adapter: _Adapter
    weight: float


class Loras:
    """The LoRAs of one pipeline, and of all pipelines that share its modules. For one thread.

    With `in_place` a LoRA that is alone, and changes the denoiser alone, takes over the place of the one
    before it: a compiled model is not compiled again.
    """

    def __init__(
        self, pipe: DiffusionPipeline, *, max_loaded: int = MAX_LOADED, in_place: bool = False
    ) -> None:
        self._pipe = pipe
        self._max_loaded = max_loaded
        self._known: dict[Path, _Adapter] = {}
        self._loaded: OrderedDict[Path, _Adapter] = OrderedDict()  # by last use, the oldest first
        self._in_use: tuple[_Use, ...] = ()
        self._slot = LoraSlot(pipe) if in_place else None

    @property
    def loaded(self) -> tuple[Path, ...]:
        """Files whose LoRAs are loaded now, the one that was not used for the longest first."""
        swapped = (self._slot.holds,) if self._slot and self._slot.holds else ()
        return (*self._loaded, *swapped)

    def use(self, wanted: Sequence[Wanted]) -> tuple[tuple[str, float], ...]:
        """From now on exactly these LoRAs work; none: the bare model. Gives alias and weight of each, sorted.

        Their order doesn't matter, and one with weight 0 is left out. Raises LoraNotUsable when one of them
        can't be used, and whatever is raised when memory is short: then all works as before.
        """
        chosen = _canonical(wanted)
        if chosen and not hasattr(self._pipe, "load_lora_weights"):
            raise LoraNotUsable("this model takes no LoRAs")
        with torch.inference_mode(mode=False):  # weights made within could not be changed in place later
            uses = tuple(_Use(alias, self._examine(alias, path), weight) for alias, path, weight in chosen)
            if uses != self._in_use:
                self._change_to(uses)
        return tuple((use.alias, use.weight) for use in self._in_use)

    def text_key(self) -> tuple[tuple[str, float], ...]:
        """What the LoRAs in use do to the text encoders: prompts encoded under equal keys are the same."""
        return tuple((use.adapter.name, use.weight) for use in self._in_use if not use.adapter.denoiser_alone)

    def _examine(self, alias: str, path: Path) -> _Adapter:
        """Reads the file and holds it against the model, once."""
        if path not in self._known:
            tensors = lora_files.read(alias, path)
            counts = lora_files.layers_that_fit(alias, self._pipe, tensors)
            name = f"lora_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"  # PEFT takes no dots
            self._known[path] = _Adapter(path, name, tuple(sorted(counts.items())), lora_files.rank(tensors))
        return self._known[path]

    def _change_to(self, uses: tuple[_Use, ...]) -> None:
        before = self._in_use
        try:
            self._activate(uses)
        except BaseException:
            self._activate(before)
            raise
        self._in_use = uses
        self._forget_surplus()

    def _activate(self, uses: Sequence[_Use]) -> None:
        if len(uses) == 1 and self._swap_in(uses[0]):
            return
        for use in uses:
            self._load(use)
        if uses:
            self._pipe.enable_lora()
            self._pipe.set_adapters([use.adapter.name for use in uses], [use.weight for use in uses])
        elif self.loaded:
            self._pipe.disable_lora()

    def _load(self, use: _Use) -> None:
        adapter = use.adapter
        if adapter.path not in self._loaded:
            lora_adapters.load(self._pipe, use.alias, adapter.path, adapter.name, dict(adapter.counts))
            self._loaded[adapter.path] = adapter
        self._loaded.move_to_end(adapter.path)

    def _forget_surplus(self) -> None:
        needed = {use.adapter.path for use in self._in_use}
        idle = [path for path in self._loaded if path not in needed]
        for path in idle[: max(0, len(self._loaded) - self._max_loaded)]:
            lora_adapters.remove(self._pipe, self._loaded.pop(path).name)

    # -- in place -----------------------------------------------------------------------------------------

    def _swap_in(self, use: _Use) -> bool:
        component = use.adapter.denoiser_alone
        if self._slot is None or component is None:
            return False
        if not self._slot.has_room_for(use.adapter.rank):  # room is then made in every LoRA that is there
            self._forget_all()
        count = dict(use.adapter.counts)[component]
        self._slot.put(use.alias, use.adapter.path, component, count, use.adapter.rank)
        self._slot.activate(component, use.weight)
        return True

    def _forget_all(self) -> None:
        while self._loaded:
            _, adapter = self._loaded.popitem()
            lora_adapters.remove(self._pipe, adapter.name)


def _canonical(wanted: Sequence[Wanted]) -> list[Wanted]:
    """By alias, for sums of floats depend on their order; without those that do nothing."""
    aliases = [alias for alias, _, _ in wanted]
    if len(set(aliases)) < len(aliases):
        raise LoraNotUsable("a LoRA is named twice")
    for alias, _, weight in wanted:
        if not math.isfinite(weight):
            raise LoraNotUsable(f"LoRA {alias}: its weight is not a number")
    return sorted((one for one in wanted if one[2]), key=lambda one: one[0])

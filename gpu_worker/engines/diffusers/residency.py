"""Which models are on the device, which wait in the machine's memory, and who has to make room."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.catalog import ModelEntry
from gpu_worker.engines.diffusers.families.base import FamilyAdapter
from gpu_worker.engines.diffusers.loras import Loras
from gpu_worker.engines.diffusers.preview import LatentPreview
from gpu_worker.engines.diffusers.safety import SafetyGuard

logger = logging.getLogger(__name__)

WORKING_SHARE = 0.15  # of the device's memory is left to what the work itself takes
MEMORY_TO_LEAVE = 2 * 2**30  # bytes of the machine's memory that models parked there leave free

Place = Literal["device", "memory", "offloaded"]


@dataclass
class Resident:
    """A model that is loaded."""

    entry: ModelEntry
    adapter: FamilyAdapter
    loras: Loras
    weights: int  # bytes
    dtype: str
    guard: SafetyGuard | None = None
    place: Place = "memory"
    preview: LatentPreview = field(default_factory=LatentPreview)
    traits: Mapping[str, str | bool] = field(default_factory=dict)  # what was done for its speed
    batch: int = 1  # images at once, at the model's own size; found out at the first use
    settled: bool = False  # whether that was done
    used_at: float = 0.0  # time.monotonic()


class Residency:
    """The models of one device, the least recently used give way. For one thread, but for `loaded`.

    `load` brings a model into the machine's memory. `budget`: bytes of weights that may be on the device at
    once; None: what the device has, less a share for the work.
    """

    def __init__(
        self, device: torch.device, load: Callable[[str], Resident], *, budget: int | None = None
    ) -> None:
        self._device = device
        self._load = load
        self._budget = budget if budget is not None else _budget_of(device)
        self._residents: dict[str, Resident] = {}

    def loaded(self) -> tuple[str, ...]:
        """Aliases of the models on the device. From any thread."""
        return tuple(alias for alias, one in list(self._residents.items()) if one.place != "memory")

    def parked(self) -> tuple[str, ...]:
        """Aliases of the models in the machine's memory. From any thread."""
        return tuple(alias for alias, one in list(self._residents.items()) if one.place == "memory")

    def take(self, alias: str) -> Resident:
        """The model, on the device. Raises what `load` raises, or an out-of-memory error."""
        resident = self._residents.get(alias)
        if resident is None:
            self._make_room_in_memory()
            resident = self._residents[alias] = self._load(alias)
        if resident.place == "memory":
            self._bring(resident)
        resident.used_at = time.monotonic()
        return resident

    def evict_others(self, alias: str) -> bool:
        """Sends all models but this one from the device; False: there was no other."""
        others = [one for one in self._on_device() if one.entry.alias != alias]
        for one in others:
            self._park(one)
        return bool(others)

    def offload(self, resident: Resident) -> bool:
        """Keeps a model's parts in the machine's memory, but for the one that works. False: it can't be."""
        if resident.place == "offloaded" or resident.entry.offload == "never":
            return False
        if not memory.offload_on(resident.adapter.pipe, self._device):
            return False
        logger.warning("The model %s is offloaded: the device has too little memory", resident.entry.alias)
        resident.place = "offloaded"
        return True

    def drop(self, alias: str) -> None:
        """Forgets a model: the next `take` loads it anew."""
        if self._residents.pop(alias, None):
            memory.empty(self._device)

    def clear(self) -> None:
        """Forgets all."""
        self._residents.clear()
        memory.empty(self._device)

    # -- making room ----------------------------------------------------------------------------------

    def _bring(self, resident: Resident) -> None:
        alias = resident.entry.alias
        if self._budget is not None and resident.weights > self._budget and self.offload(resident):
            return
        self._make_room_for(resident)
        try:
            resident.adapter.pipe.to(self._device)
            if resident.guard:
                resident.guard.checker.to(self._device)
        except Exception as exc:
            # Half of it may be there: not to be used, and not to be kept
            self._residents.pop(alias, None)
            if not memory.is_out_of_memory(exc):
                raise
            self.evict_others(alias)
            raise
        resident.place = "device"
        logger.info("The model %s is on the device", alias)

    def _make_room_for(self, resident: Resident) -> None:
        if self._budget is None:
            return
        there = sorted(self._on_device(), key=lambda one: one.used_at)
        taken = sum(one.weights for one in there)
        while there and taken + resident.weights > self._budget:
            parked = there.pop(0)
            taken -= parked.weights
            self._park(parked)

    def _park(self, resident: Resident) -> None:
        """To the machine's memory, where that is another one and has room; else away."""
        if resident.place == "offloaded" or self._device.type in ("cpu", "mps"):
            self._residents.pop(resident.entry.alias, None)
        else:
            resident.adapter.pipe.to("cpu")
            if resident.guard:
                resident.guard.checker.to(torch.device("cpu"))
            resident.place = "memory"
        memory.empty(self._device)
        logger.info("The model %s has given way", resident.entry.alias)

    def _make_room_in_memory(self) -> None:
        """Drops parked models, oldest first, while the machine's memory runs short."""
        for one in sorted(self._residents.values(), key=lambda one: one.used_at):
            free = memory.free_bytes(torch.device("cpu"))
            if free is None or free > MEMORY_TO_LEAVE:
                return
            if one.place == "memory" or self._device.type == "cpu":
                self.drop(one.entry.alias)

    def _on_device(self) -> list[Resident]:
        return [one for one in self._residents.values() if one.place != "memory"]


def _budget_of(device: torch.device) -> int | None:
    total = memory.total_bytes(device)
    return None if total is None else int(total * (1 - WORKING_SHARE))

"""Out of memory is a ladder, not a failure: each rung takes less memory, and is written down.

others: the other models leave the device. batch: half as many images at once. tiling: the VAE works tile by
tile, which changes pixels slightly. offload: the model's parts are on the device only while they work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from gpu_worker.engines.diffusers import memory

Item = TypeVar("Item")
Made = TypeVar("Made")
Lost = TypeVar("Lost")


class OutOfMemory(Exception):
    """The last rung didn't hold."""


@dataclass(frozen=True)
class Rungs:
    """What can be done for a batch when memory is short. Each says whether it changed anything."""

    evict_others: Callable[[], bool]
    offload: Callable[[], bool]
    can_tile: bool
    tiled: Callable[[], AbstractContextManager[bool]]
    bit_for_bit: bool = False  # only what changes no pixels and no batch


@dataclass
class Ladder:
    """The rungs taken so far, and how many images are made at once now."""

    rungs: Rungs
    at_once: int
    device: torch.device
    taken: tuple[str, ...] = ()
    tiles: bool = False

    def climb_down(self) -> None:
        """Takes the next rung. Raises `OutOfMemory` where there is none."""
        for name, take in self._steps():
            if take():
                self.taken = (*self.taken, name() if callable(name) else name)
                return
        raise OutOfMemory

    def _steps(self) -> "Iterator[tuple[str | Callable[[], str], Callable[[], bool]]]":
        if "others" not in self.taken:
            yield "others", self.rungs.evict_others
        if not self.rungs.bit_for_bit:
            yield lambda: f"batch {self.at_once}", self._halve
            yield "tiling", self._tile
        if "offload" not in self.taken:
            yield "offload", self.rungs.offload

    def _halve(self) -> bool:
        if self.at_once <= 1:
            return False
        self.at_once = (self.at_once + 1) // 2
        return True

    def _tile(self) -> bool:
        if self.tiles or not self.rungs.can_tile:
            return False
        self.tiles = True
        return True


def made_in_parts(
    items: Sequence[Item],
    ladder: Ladder,
    make: Callable[[Sequence[Item], Ladder], Sequence[Made]],
    *,
    lost: Lost,
) -> list[Made | Lost]:
    """What `make` gives for all items, called with as many at once as memory allows.

    What was made before memory ran out is kept; what the last rung doesn't hold is `lost`. Raises whatever
    else `make` raises.
    """
    made: list[Made | Lost] = []
    while len(made) < len(items):
        part = items[len(made) : len(made) + ladder.at_once]
        failure = None
        try:
            with ladder.rungs.tiled() if ladder.tiles else nullcontext():
                made.extend(make(part, ladder))
        except Exception as exc:
            if not memory.is_out_of_memory(exc):
                raise
            failure = exc
        # Outside of the except block: what the exception holds, tensors among it, lives as long as it does
        if failure is not None:
            memory.clear(failure, ladder.device)
            failure = None
            try:
                ladder.climb_down()
            except OutOfMemory:
                return [*made, *[lost] * (len(items) - len(made))]
    return made

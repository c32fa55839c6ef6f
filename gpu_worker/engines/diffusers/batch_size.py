"""How many images at once pay: found out by trying, within a time and the memory that there is."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch

from gpu_worker.engines.diffusers import memory

WORTH_IT: Final = 1.08  # images per second, over the smaller batch
CANDIDATES: Final = (1, 2, 4, 8, 16)


def sweep(
    measure: Callable[[int], float],
    candidates: Sequence[int] = CANDIDATES,
    budget_s: float = 30.0,
    *,
    most: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """The batch that makes clearly more images per second than any smaller one; the first candidate at least.

    `measure` gives the seconds that one batch of so many takes, or infinity where memory doesn't hold it; it
    may take longer than that itself. Not tried is what is above `most`, what would end after `budget_s`, and
    what comes after two sizes in a row that didn't pay.
    """
    sizes = sorted({size for size in candidates if size <= most}) or [min(candidates)]
    begun = clock()
    best, rate, in_vain = sizes[0], 0.0, 0
    cost = 0.0  # seconds of the last trial, for each image
    for size in sizes:
        if size > sizes[0] and (in_vain == 2 or clock() - begun + cost * size > budget_s):
            break
        trial = clock()
        seconds = measure(size)
        cost = (clock() - trial) / size
        if not math.isfinite(seconds):
            break
        if size / seconds >= rate * WORTH_IT:
            best, rate, in_vain = size, size / seconds, 0
        else:
            in_vain += 1
    return best


def most_that_fit(free: int | None, peaks: dict[int, int]) -> float:
    """How many images `free` bytes hold, from the most that two batches took; infinity: unknown."""
    if free is None or len(peaks) < 2:
        return math.inf
    (small, low), (large, high) = min(peaks.items()), max(peaks.items())
    for_each = (high - low) / (large - small)
    if for_each <= 0:
        return math.inf
    return max(1, math.floor((free - (low - small * for_each)) / for_each))


class Trials:
    """Measures batches, and doesn't begin those that memory won't hold."""

    def __init__(self, device: torch.device, measure: Callable[[int], float]) -> None:
        self._device = device
        self._measure = measure
        self._peaks: dict[int, int] = {}  # bytes, by size of the batch

    def seconds(self, size: int) -> float:
        """What `sweep` asks for."""
        if size > most_that_fit(memory.total_bytes(self._device), self._peaks):
            return math.inf
        if self._device.type != "cuda":
            return self._measure(size)
        torch.cuda.reset_peak_memory_stats(self._device)
        seconds = self._measure(size)
        self._peaks[size] = torch.cuda.max_memory_allocated(self._device)
        return seconds

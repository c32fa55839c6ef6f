"""The batch that pays: as large as it brings something, as memory holds, and as there is time to find out."""

import math
from collections.abc import Callable

import pytest

from gpu_worker.engines.diffusers.batch_size import most_that_fit, sweep

SIZES = (1, 2, 4, 8, 16)


class Device:
    """Takes `fixed` seconds for each batch and `each` for each image of it; a clock goes with it."""

    def __init__(self, fixed: float, each: float, holds: float = math.inf) -> None:
        self.fixed, self.each, self.holds = fixed, each, holds
        self.tried: list[int] = []
        self.now = 0.0

    def measure(self, batch: int) -> float:
        self.tried.append(batch)
        if batch > self.holds:
            self.now += 0.1
            return math.inf
        seconds = self.fixed + self.each * batch
        self.now += seconds
        return seconds

    def clock(self) -> float:
        return self.now


def swept(device: Device, budget_s: float = 1000.0, most: float = math.inf) -> int:
    return sweep(device.measure, SIZES, budget_s, most=most, clock=device.clock)


@pytest.mark.parametrize(
    ("fixed", "each", "best"),
    [
        (1.0, 0.0, 16),  # the batch costs nothing: all of it
        (0.0, 1.0, 1),  # saturated by one image: never wait for a second one
        (1.0, 0.05, 16),
        (1.0, 1.0, 8),  # 1.5, 1.67 ... : 8 gives 1.78 / 1.6 = 11 %, 16 gives 6 % only
        (0.1, 1.0, 1),  # 4.8 %
    ],
)
def test_larger_batches_must_be_worth_it(fixed: float, each: float, best: int) -> None:
    assert swept(Device(fixed, each)) == best


def test_stops_when_two_sizes_did_not_pay() -> None:
    device = Device(0.0, 1.0)
    swept(device)
    assert device.tried == [1, 2, 4]


def test_one_odd_size_does_not_end_it() -> None:
    """Kernels like some sizes better than others."""
    times = {1: 1.0, 2: 2.0, 4: 2.0, 8: 4.0, 16: 8.0}
    assert sweep(times.__getitem__, SIZES, clock=lambda: 0.0) == 4


def test_memory_ends_it() -> None:
    device = Device(1.0, 0.0, holds=5)
    assert swept(device) == 4
    assert device.tried == [1, 2, 4, 8]


def test_what_surely_does_not_fit_is_not_tried() -> None:
    device = Device(1.0, 0.0)
    assert swept(device, most=7) == 4
    assert device.tried == [1, 2, 4]


@pytest.mark.parametrize(("budget_s", "tried"), [(0.0, [1]), (2.5, [1]), (3.5, [1, 2]), (100.0, list(SIZES))])
def test_time_ends_it(budget_s: float, tried: list[int]) -> None:
    device = Device(1.0, 0.1)
    assert swept(device, budget_s) == tried[-1]
    assert device.tried == tried


@pytest.mark.parametrize("candidates", [(3,), (16, 8), (2, 2)])
def test_there_is_always_one(candidates: tuple[int, ...]) -> None:
    never: Callable[[int], float] = lambda batch: math.inf  # noqa: E731
    assert sweep(never, candidates, clock=lambda: 0.0) == min(candidates)
    assert sweep(never, candidates, most=1, clock=lambda: 0.0) == min(candidates)


def test_two_batches_tell_how_many_fit() -> None:
    """10 for whatever is needed once, 5 for each image."""
    assert most_that_fit(100, {1: 15, 2: 20}) == 18
    assert most_that_fit(12, {1: 15, 2: 20}) == 1
    assert most_that_fit(None, {1: 15, 2: 20}) == math.inf
    assert most_that_fit(100, {1: 15}) == math.inf
    assert most_that_fit(100, {1: 15, 2: 15}) == math.inf

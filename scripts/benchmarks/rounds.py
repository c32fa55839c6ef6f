"""Measures several ways side by side: they take turns, so that a busy moment of the machine hits them all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.benchmarks.figures import say


@dataclass(frozen=True)
class Way:
    """One way to make so many images."""

    images: int
    make: Callable[[], object]
    cpu: Callable[[], float | None]  # seconds that processors have worked for it so far


@dataclass(frozen=True)
class Measured:
    """Seconds for an image, in each round."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]  # of processors: what others do on the machine isn't in it; empty: unknown

    @property
    def rate(self) -> float:
        """Images per second, in the median."""
        return 1 / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest to the slowest round, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) * self.rate


def in_turns(
    ways: Mapping[str, Way],
    rounds: int,
    *,
    of: str = "an image",
    tidy: Callable[[], object] = lambda: None,
) -> dict[str, Measured]:
    """Each way once per round; each round begins with another one.

    `of`: what a way makes. `tidy`: what is done after each round, unmeasured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = ways[name].cpu()
            seconds[name].append(_seconds(ways[name]))
            after = ways[name].cpu()
            if before is not None and after is not None:
                cpu[name].append((after - before) / ways[name].images)
        told = ", ".join(f"{name} {spent[-1] * 1000:.3g} ms" for name, spent in seconds.items())
        say(f"round {number + 1} of {rounds}, {of}: {told}")
        tidy()
    return {name: Measured(tuple(spent), tuple(cpu[name])) for name, spent in seconds.items()}


def _seconds(way: Way) -> float:
    begun = time.perf_counter()
    way.make()
    return (time.perf_counter() - begun) / way.images


def times_as_fast(one: Measured, other: Measured) -> float:
    """As `other`; the median of the rounds, in each of which both met the same machine."""
    return statistics.median(theirs / ours for ours, theirs in zip(one.seconds, other.seconds, strict=True))

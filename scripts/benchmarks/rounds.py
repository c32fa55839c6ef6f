"""Measures several ways side by side: they take turns, so that a busy moment of the machine hits them all."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.benchmarks.figures import say


@dataclass(frozen=True)
class Measured:
    """Seconds of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest to the slowest round, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def in_turns(ways: Mapping[str, Callable[[], object]], clock: Callable[[], float], rounds: int) -> dict[str, Measured]:
    """Each way once per round, in an order that is turned by one from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = clock()
            ways[name]()
            seconds[name].append(clock() - begun)
        say(f"round {number + 1} of {rounds}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in seconds.items()))
    return {name: Measured(tuple(spent)) for name, spent in seconds.items()}


def paired_ratio(one: Measured, other: Measured) -> float:
    """How many times as fast as `other` `one` is, in the median of the rounds: each against its neighbour."""
    return statistics.median(theirs / ours for ours, theirs in zip(one.seconds, other.seconds, strict=True))

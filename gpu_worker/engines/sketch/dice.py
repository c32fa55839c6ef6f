"""Chance that falls the same way on every run, Python version and numpy version.

Only `random.Random.random` has a promised sequence (its other methods have changed between versions), and
of numpy's generators only the frozen `RandomState`.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """All the chance in one picture."""

    def __init__(self, *seeds: object) -> None:
        digest = hashlib.sha256("\x00".join(map(str, seeds)).encode("utf-8", "surrogatepass")).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 - art, not secrets

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`, evenly."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return min(high, low + int(self._random.random() * (high - low + 1)))

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self._random.random() < probability

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.chance(0.5) else -1

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.whole(0, len(options) - 1)]

    def weighted(self, options: Mapping[T, float]) -> T:
        """One of them, each as often as its weight says."""
        point = self._random.random() * sum(options.values())
        for option, weight in options.items():
            point -= weight
            if point < 0:
                return option
        return next(reversed(list(options)))

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All of them in some order."""
        left = list(options)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(len(left))]

    def array(self) -> np.random.RandomState:
        """A numpy generator whose stream is frozen."""
        return np.random.RandomState(int(self._random.random() * 2**32))

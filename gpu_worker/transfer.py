"""What uploads and downloads by signed URL have in common: how they fail, and how they are tried again."""

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from gpu_worker.engines.base import Failure

FIRST_PAUSE_S = 0.5  # doubled after each try, with jitter
LONGEST_PAUSE_S = 8.0

Result = TypeVar("Result")


class TransferFailed(Exception):
    """The bytes did not get through. `failure` is for the client."""

    def __init__(self, failure: Failure, reason: str) -> None:
        self.failure = failure
        super().__init__(reason)  # for the log: without the URL, which is a key


def tried_again(
    once: Callable[[float], Result],
    until: float,
    *,
    passing: Failure,
    longest_try_s: float,
    first_pause_s: float,
) -> Result:
    """What `once` gives, which is called with the moment (time.monotonic()) when it must have ended.

    Raises what it raises, at `until` at the latest; only failures that are `passing` are tried again.
    """
    for turn in itertools.count(1):
        try:
            return once(min(until, time.monotonic() + longest_try_s))
        except TransferFailed as exc:
            pause = _pause_s(turn, first_pause_s)
            if exc.failure is not passing or time.monotonic() + pause >= until:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable: it returns or raises")


def _pause_s(turn: int, first_pause_s: float) -> float:
    longest: float = min(first_pause_s * 2 ** min(turn - 1, 10), LONGEST_PAUSE_S)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter

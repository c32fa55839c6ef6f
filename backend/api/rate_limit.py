"""How often an owner may ask for work: a sliding minute, counted in the result store for all processes."""

import logging
import math
import time

import redis

from backend.errors import RateLimited

WINDOW_S = 60

log = logging.getLogger(__name__)


class RateLimiter:
    """Counts requests by owner. Thread-safe. `per_minute` 0: lets in all."""

    def __init__(self, client: "redis.Redis", per_minute: int) -> None:
        self._redis = client
        self._per_minute = per_minute

    @property
    def limits(self) -> bool:
        """Whether anything is counted."""
        return self._per_minute > 0

    def check(self, owner: str) -> None:
        """Counts one request; raises `RateLimited` if it is one too many, which doesn't count.

        Two counters, of this minute and of the one before, which weighs as much as it still overlaps the
        last 60 s. Where the store is away everything is let in.
        """
        if not self._per_minute:
            return
        window, passed_s = divmod(time.time(), WINDOW_S)
        try:
            before, count = self._count(owner, int(window))
            if before * (1 - passed_s / WINDOW_S) + count <= self._per_minute:
                return
            self._redis.decr(_key(owner, int(window)))
        except redis.RedisError as exc:
            log.warning("requests are not counted: the result store is away: %s", type(exc).__name__)
            return
        raise RateLimited(
            f"At most {self._per_minute} requests for work are taken in a minute.",
            retry_after_s=_wait_s(before, count - 1, self._per_minute, passed_s),
        )

    def _count(self, owner: str, window: int) -> tuple[int, int]:
        """Requests of the minute before, and of this one with the new one."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.incr(_key(owner, window))
        pipe.expire(_key(owner, window), 2 * WINDOW_S)
        pipe.get(_key(owner, window - 1))
        count, _, before = pipe.execute()
        return int(before or 0), int(count)


def _wait_s(before: int, count: int, per_minute: int, passed_s: float) -> int:
    """Seconds until one more is let in, if no other is before."""
    room = per_minute - 1 - count
    if room >= 0 and before:  # once the minute before weighs less
        until = WINDOW_S * (1 - room / before) - passed_s
    else:  # once this minute is the one before, and weighs less
        until = WINDOW_S - passed_s + WINDOW_S * (1 - (per_minute - 1) / max(count, 1))
    return max(1, math.ceil(until))


def _key(owner: str, window: int) -> str:
    return f"fanfare:rate:{owner}:{window}"

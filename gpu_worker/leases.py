"""Renews the node's leases: what it has in hand is nobody else's, as long as the node lives.

On Redis a message that was taken and not acknowledged comes again after the visibility timeout, counted from
when it was taken. With images that would have to be longer than the slowest model takes for all that a node
has in hand; and so long an image would wait whose node died. So the time is short, and counted anew as long
as the node works. RabbitMQ needs none of this: there the connection is the lease.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from contract.queues import LEASE_S

logger = logging.getLogger(__name__)

RENEW_EVERY_S = LEASE_S / 6


class Leases(threading.Thread):
    """Renews until it is told to stop. `channel` gives kombu's channel that messages come from, or None."""

    def __init__(self, channel: Callable[[], Any], *, every_s: float = RENEW_EVERY_S) -> None:
        super().__init__(name="leases", daemon=True)
        self._channel = channel
        self._every_s = every_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._renew()
            except (redis.RedisError, OSError) as exc:
                logger.warning("The broker renews no leases (%s): trying again", exc)

    def _renew(self) -> None:
        channel = self._channel()
        index = getattr(channel, "unacked_index_key", None)
        if index is None:  # no connection just now, or not Redis
            return
        now = time.time()  # kombu's clock
        with channel.conn_or_acquire() as client:
            held = dict.fromkeys(list(channel.qos._delivered), now)
            if held:
                client.zadd(index, held, xx=True)  # one that was acknowledged meanwhile stays away

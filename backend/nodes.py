"""Which nodes are alive and which models are known, as the nodes themselves announce it.

Asked on every submit and poll, so the answer is kept for a second; and when the result store is away the
last answer stands.
"""

import logging
import threading
import time
from dataclasses import dataclass, field

import redis

from contract.messages import ModelCard, NodeAnnouncement
from contract.signals import Signals

CACHE_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What was announced last."""

    nodes: tuple[NodeAnnouncement, ...] = ()
    models: dict[str, ModelCard] = field(default_factory=dict)
    reachable: bool = False  # whether the result store answered

    def serving(self, model: str) -> list[NodeAnnouncement]:
        """The live nodes that serve this model and take work."""
        return [
            node
            for node in self.nodes
            if node.state != "draining" and any(card.name == model for card in node.models)
        ]


class NodeDirectory:
    """Reads announcements. Thread-safe; never raises for a store that is away."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._read_at = float("-inf")

    def snapshot(self) -> Snapshot:
        """What is known now, at most CACHE_S old where the store answers."""
        with self._lock:
            if time.monotonic() - self._read_at > CACHE_S:
                self._snapshot = self._read()
                self._read_at = time.monotonic()
            return self._snapshot

    def _read(self) -> Snapshot:
        try:
            return Snapshot(tuple(self._signals.nodes()), self._signals.models(), reachable=True)
        except redis.RedisError as exc:
            log.warning("the result store is away: %s", type(exc).__name__)
            return Snapshot((), self._snapshot.models, reachable=False)

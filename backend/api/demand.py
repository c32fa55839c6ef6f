"""What waits for which model: the signal that nodes are scaled by, on `/v1/models` and as a metric."""

import threading
import time

from backend.jobs import queries
from backend.jobs.queries import Demand
from backend.resources import Resources

CACHE_S = 1.0


class DemandBoard:
    """Asks the database, at most once per CACHE_S however many ask. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._known: dict[str, Demand] = {}
        self._read_at = float("-inf")

    def read(self) -> dict[str, Demand]:
        """Every model that can be asked for, by name. Raises `DatabaseUnavailable`."""
        with self._lock:
            if time.monotonic() - self._read_at > CACHE_S:
                self._known = self._ask()
                self._read_at = time.monotonic()
            return self._known

    def _ask(self) -> dict[str, Demand]:
        names = known_models(self._resources)
        with self._resources.db.read_scope() as session:
            found = queries.demand(session, names)
        return {name: found.get(name, Demand()) for name in sorted(names)}


def known_models(resources: Resources) -> set[str]:
    """All aliases that a request may name."""
    settings = resources.settings
    return set(resources.nodes.snapshot().models) | set(settings.models) | {settings.default_model}

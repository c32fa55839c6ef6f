"""What is true of the whole system: read when it is asked for, so that every API process says the same."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.registry import Collector

from backend import views
from backend.api.demand import DemandBoard, known_models
from backend.errors import BrokerUnavailable, DatabaseUnavailable
from backend.jobs import queries
from backend.nodes import Snapshot
from backend.queue_depths import queue_depths
from backend.resources import Resources
from contract.queues import CPU_QUEUES, gpu_queue

CACHE_S = 1.0
NODE_STATES = ("starting", "ready", "draining")
ENDED_WITHIN = timedelta(hours=1)


class SystemCollector(Collector):
    """Asks database, broker and result store; of a service that is away, its own metrics are missing."""

    def __init__(self, resources: Resources, board: DemandBoard) -> None:
        self._resources = resources
        self._board = board
        self._lock = threading.Lock()
        self._known: list[Metric] = []
        self._read_at = float("-inf")

    def collect(self) -> Iterable[Metric]:
        """At most CACHE_S old, however many ask."""
        with self._lock:
            if time.monotonic() - self._read_at > CACHE_S:
                self._known = list(self._read())
                self._read_at = time.monotonic()
            return self._known

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would ask all services when the API starts."""
        return ()

    def _read(self) -> Iterator[Metric]:
        snapshot = self._resources.nodes.snapshot()
        up = {"result_store": snapshot.reachable}
        if snapshot.reachable:
            yield from _nodes(snapshot)
        for service, away, read in (
            ("database", DatabaseUnavailable, self._database),
            ("broker", BrokerUnavailable, self._broker),
        ):
            found = _unless(away, read)
            up[service] = found is not None
            yield from found or ()
        yield _gauge("fanfare_service_up", "Whether this process reaches the service.", "service", up)
        yield _gauge("fanfare_build_info", "The version of the API.", "version", {version("fanfare"): 1})

    def _database(self) -> Iterator[Metric]:
        now, demand = views.now(), self._board.read()
        with self._resources.db.read_scope() as session:
            open_jobs = queries.open_jobs(session)
            ended_jobs = queries.ended_jobs(session, now - ENDED_WITHIN)
            due = queries.webhooks_due(session, now)
        waiting = {name: one.waiting for name, one in demand.items()}
        running = {name: one.running for name, one in demand.items()}
        oldest = {name: one.oldest_wait_s(now) for name, one in demand.items()}
        yield _gauge("fanfare_images_waiting", "Images that no node has begun.", "model", waiting)
        yield _gauge("fanfare_images_running", "Images that nodes have in hand.", "model", running)
        yield _gauge(
            "fanfare_images_oldest_wait_seconds", "How long the oldest waits; 0: none does.", "model", oldest
        )  # fmt: skip
        yield _gauge("fanfare_jobs_open", "Jobs that have not ended.", "status", open_jobs)
        yield _gauge("fanfare_jobs_ended_last_hour", "Jobs that ended within the hour.", "status", ended_jobs)
        yield Gauge(
            "fanfare_webhooks_due", "Deliveries whose time has come, and that are not made.", value=due
        )

    def _broker(self) -> Iterator[Metric]:
        queues = [*CPU_QUEUES, *(gpu_queue(model) for model in sorted(known_models(self._resources)))]
        depths = queue_depths(self._resources.celery, queues)
        yield _gauge("fanfare_queue_messages", "Messages that nobody has taken.", "queue", depths)


def _unless(away: type[Exception], read: Callable[[], Iterable[Metric]]) -> list[Metric] | None:
    """What is read, whole; None where the service is away."""
    try:
        return list(read())
    except away:
        return None


def _nodes(snapshot: Snapshot) -> Iterator[Metric]:
    states = dict.fromkeys(NODE_STATES, 0) | Counter(node.state for node in snapshot.nodes)
    yield _gauge("fanfare_nodes", "Live nodes.", "state", states)
    by_model = Gauge(
        "fanfare_model_nodes", "Live nodes that serve a model; one that serves two counts twice.",
        labels=("model", "state"),
    )  # fmt: skip
    found: Counter[tuple[str, str]] = Counter(
        (card.name, node.state) for node in snapshot.nodes for card in node.models
    )
    for model in sorted(snapshot.models):
        for state in NODE_STATES:
            by_model.add_metric((model, state), found[model, state])
    yield by_model
    loaded = {name: sum(name in node.loaded for node in snapshot.nodes) for name in sorted(snapshot.models)}
    yield _gauge(
        "fanfare_model_nodes_loaded", "Live nodes that can begin without loading it.", "model", loaded
    )


def _gauge(name: str, told: str, label: str, values: Mapping[str, float]) -> Gauge:
    family = Gauge(name, told, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family

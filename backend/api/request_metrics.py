"""What this process has answered, and how fast: by the templates of its routes, never by their paths."""

from collections.abc import Mapping
from functools import cached_property

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import Scope

OTHER = "other"  # what no route of ours has answered: names that strangers think up are no labels
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class RequestMetrics:
    """Counts requests. Thread-safe."""

    def __init__(self, app: FastAPI, registry: CollectorRegistry) -> None:
        self._app = app
        self._count = Counter(
            "fanfare_http_requests", "Requests that this process answered.", ("method", "route", "status"),
            registry=registry,
        )  # fmt: skip
        self._took = Histogram(
            "fanfare_http_request_duration_seconds",
            "Time until the answer began; of `Prefer: wait` the wait is a part.", ("method", "route"),
            registry=registry, buckets=BUCKETS_S,
        )  # fmt: skip

    def observe(self, scope: Scope, status: int, took_s: float) -> None:
        """One request was answered, with status 0 if nobody stayed for the answer."""
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = self._templates.get(scope.get("endpoint"), OTHER)
        self._count.labels(method, route, status or "none").inc()
        self._took.labels(method, route).observe(took_s)

    @cached_property
    def _templates(self) -> Mapping[object, str]:
        """The whole template of each endpoint: a route itself doesn't know the prefix that it is under."""
        contexts = iter_route_contexts(self._app.routes)
        return {one.endpoint: one.path_format or OTHER for one in contexts if one.endpoint}

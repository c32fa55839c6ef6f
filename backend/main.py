"""create_app(): the API."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CollectorRegistry, ProcessCollector

from backend.api import (
    celery_status,
    deliveries,
    documentation,
    endpoints,
    events,
    files,
    fleet,
    health,
    inbox,
    items,
    jobs,
    media,
    metrics,
    pipelines,
    problems,
    product_images,
    product_table,
    products,
    uploads,
    webhooks,
)
from backend.api.answers import Answers
from backend.api.demand import DemandBoard
from backend.api.dependencies import KeyGuard
from backend.api.feed import Feed
from backend.api.middleware import RequestContext
from backend.api.rate_limit import RateLimiter
from backend.api.request_metrics import RequestMetrics
from backend.api.system_metrics import SystemCollector
from backend.pipelines.uploads import UploadsRequest
from backend.resources import Resources, open_sign_in
from backend.settings import Settings, get_settings
from contract.signals import connect

DESCRIPTION = """One message goes in, a fanfare of finished images comes out.

Submit with `POST /v1/thumbnails`; then poll `GET /v1/jobs/{task_id}` (with `Prefer: wait=30`), stream
`GET /v1/jobs/{task_id}/events`, or be told by a webhook. Errors are problems
by RFC 9457 with a stable `code`.
"""
EXPOSED_HEADERS = (
    "Location", "Retry-After", "ETag", "X-Request-ID", "Idempotency-Replayed", "Preference-Applied",
)  # fmt: skip

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API. Its resources are opened when it starts, not when it is made."""
    chosen = settings or get_settings()
    app = FastAPI(
        title="Fanfare",
        version=version("fanfare"),
        summary="One message in, N finished images out.",
        description=DESCRIPTION,
        lifespan=_lifespan,
        redoc_url=None,
    )
    app.state.settings = chosen
    _include_routes(app)
    problems.install(app)
    documentation.install(app, UploadsRequest)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )
    app.add_middleware(RequestContext, observe=_measure(app).observe)
    return app


def _include_routes(app: FastAPI) -> None:
    v1 = APIRouter(prefix="/v1")
    v1.include_router(pipelines.create_router())
    for part in (
        uploads, jobs, items, events, inbox, fleet, webhooks, endpoints, deliveries, product_table,
        product_images, products,
    ):  # fmt: skip
        v1.include_router(part.router)
    app.include_router(v1)
    app.include_router(celery_status.router)
    app.include_router(files.router)
    app.include_router(media.router)
    app.include_router(health.router)
    app.include_router(metrics.router)


def _measure(app: FastAPI) -> RequestMetrics:
    """The app's own registry: another app in the same process counts apart."""
    app.state.registry = CollectorRegistry()
    ProcessCollector(registry=app.state.registry)
    return RequestMetrics(app, app.state.registry)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    resources = Resources.open(app.state.settings)
    app.state.resources = resources
    app.state.key_guard = KeyGuard()
    app.state.sign_in = open_sign_in(resources.settings)
    app.state.answers = Answers(resources)
    app.state.demand = DemandBoard(resources)
    app.state.system = SystemCollector(resources, app.state.demand)
    app.state.registry.register(app.state.system)
    app.state.rate_limiter = RateLimiter(
        connect(resources.settings.result_url), resources.settings.max_requests_per_minute
    )
    app.state.feed = Feed(resources)
    app.state.feed.start()
    if app.state.sign_in is not None:
        app.state.sign_in.start()
    try:
        yield
    finally:
        if app.state.sign_in is not None:
            await app.state.sign_in.stop()
        await app.state.feed.stop()
        app.state.registry.unregister(app.state.system)
        resources.close()

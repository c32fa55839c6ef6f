"""`GET /metrics`: for Prometheus."""

import hmac
from typing import Any, cast

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from backend.api.dependencies import USER, Credentials, ResourcesDep, identify
from backend.api.documentation import problems
from backend.errors import NotFound, Unauthorized

router = APIRouter(tags=["health"])

_TEXT: dict[str, Any] = {
    "description": "Metrics in the text format of Prometheus.",
    "content": {
        "text/plain": {
            "schema": {"type": "string"},
            "example": 'fanfare_images_waiting{model="sdxl"} 37.0\n',
        }
    },
}


async def check_scraper(request: Request, resources: ResourcesDep, credentials: Credentials) -> None:
    """Whether this request may read metrics. Raises `NotFound` or `Unauthorized`."""
    settings = resources.settings
    token = settings.metrics_token.get_secret_value()
    if settings.metrics == "off":
        raise NotFound
    if settings.metrics == "open":
        return
    if not token:
        owner = await identify(request, resources, credentials)
        if owner.startswith(USER):
            raise Unauthorized("Users may not read this: send an API key.")
    elif credentials is None or not hmac.compare_digest(credentials.credentials.encode(), token.encode()):
        raise Unauthorized("Send the token of FANFARE_METRICS_TOKEN: `Authorization: Bearer ...`.")


@router.get(
    "/metrics",
    operation_id="get_metrics",
    dependencies=[Depends(check_scraper)],
    response_class=Response,
    responses=problems(401, 404, 503) | {200: _TEXT},
)
def get_metrics(request: Request) -> Response:
    """For Prometheus: what waits for which model, jobs, nodes, queues, and what this process has answered.

    What is true of the whole system is the same from each API process: take the `max` of them, not the `sum`.
    Who may read it: FANFARE_METRICS.
    """
    registry = cast("CollectorRegistry", request.app.state.registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

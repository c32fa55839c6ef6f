"""`/v1/webhooks/endpoints`: receivers that are told of all your jobs."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import Field

from backend import views, webhooks
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import endpoint_links, header, problems
from backend.api.examples import ENDPOINT_ID
from backend.api.json_body import StrictRoute
from backend.api.webhooks import A_DAY_S, Grace, WebhookSecret, show_secret
from backend.jobs import endpoints
from backend.jobs.models import WebhookEndpoint as EndpointRow
from backend.pipelines.base import RequestModel, WebhookEvent

router = APIRouter(prefix="/webhooks/endpoints", tags=["webhooks"], route_class=StrictRoute)

EndpointId = Annotated[UUID, Path(description="The endpoint's id.", examples=[ENDPOINT_ID])]

_ENDINGS: list[WebhookEvent] = ["job.completed", "job.partially_completed", "job.failed", "job.canceled"]
_URL = Field(
    min_length=1,
    max_length=2048,
    description="An https URL that resolves to public addresses; or `mailto:person@example.com`, where the "
    "server sends e-mail.",
)
_EVENTS = Field(
    min_length=1,
    max_length=20,
    description="Event types to be told of; by default each way in which a job can end.",
)
_DESCRIPTION = Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="Anything of yours.")
_ENABLED = Field(description="Whether it is told of what happens.")


class NewWebhookEndpoint(RequestModel):
    """Whom to tell of all your jobs, and of what."""

    url: Annotated[str, _URL]
    events: Annotated[list[WebhookEvent], _EVENTS] = _ENDINGS
    description: Annotated[str, _DESCRIPTION] = ""
    enabled: Annotated[bool, _ENABLED] = True


class WebhookEndpointChange(RequestModel):
    """What is to change of an endpoint; what is left out, or null, stays as it is."""

    url: Annotated[str, _URL] | None = None
    events: Annotated[list[WebhookEvent], _EVENTS] | None = None
    description: Annotated[str, _DESCRIPTION] | None = None
    enabled: Annotated[bool, _ENABLED] | None = None


class WebhookEndpoint(views.View):
    """A receiver that is told of all your jobs."""

    id: UUID
    url: str
    events: list[str] = Field(description="Event types that it is told of.")
    description: str
    enabled: bool = Field(description="Whether it is told of what happens.")
    disabled_reason: str | None = Field(
        description="Why it was disabled, if you didn't do it: its receiver answered 410."
    )
    created_at: datetime
    updated_at: datetime


class WebhookEndpointList(views.View):
    """All endpoints."""

    results: list[WebhookEndpoint] = Field(description="Oldest first.")


def _show(row: EndpointRow) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=row.id, url=row.url, events=row.events, description=row.description, enabled=row.enabled,
        disabled_reason=row.disabled_reason, created_at=row.created_at, updated_at=row.updated_at,
    )  # fmt: skip


@router.post(
    "",
    status_code=201,
    operation_id="create_webhook_endpoint",
    responses=problems(400, 401, 409, 413, 415, 422, 503)
    | {
        201: {
            "description": "The endpoint.",
            "headers": {"Location": header("Where it is.")},
            "links": endpoint_links(),
        }
    },
)
def create_webhook_endpoint(
    wanted: NewWebhookEndpoint, resources: ResourcesDep, owner: OwnerDep, response: Response
) -> WebhookEndpoint:
    """Tells somebody of all your jobs, from now on. It has a secret of its own."""
    row = webhooks.create_endpoint(
        resources, owner, url=wanted.url, events=list(wanted.events), description=wanted.description,
        enabled=wanted.enabled,
    )  # fmt: skip
    response.headers["Location"] = f"/v1/webhooks/endpoints/{row.id}"
    return _show(row)


@router.get("", operation_id="list_webhook_endpoints", responses=problems(401, 503))
def list_webhook_endpoints(resources: ResourcesDep, owner: OwnerDep) -> WebhookEndpointList:
    """Your endpoints; there are 20 at most."""
    with resources.db.read_scope() as session:
        rows = endpoints.list_endpoints(session, owner)
    return WebhookEndpointList(results=[_show(row) for row in rows])


@router.get("/{endpoint_id}", operation_id="get_webhook_endpoint", responses=problems(401, 404, 422, 503))
def get_webhook_endpoint(
    endpoint_id: EndpointId, resources: ResourcesDep, owner: OwnerDep
) -> WebhookEndpoint:
    """One of your endpoints."""
    return _show(webhooks.read_endpoint(resources, endpoint_id, owner))


@router.patch(
    "/{endpoint_id}",
    operation_id="update_webhook_endpoint",
    responses=problems(400, 401, 404, 413, 415, 422, 503)
    | {200: {"description": "The endpoint as it is now."}},
)
def update_webhook_endpoint(
    endpoint_id: EndpointId, change: WebhookEndpointChange, resources: ResourcesDep, owner: OwnerDep
) -> WebhookEndpoint:
    """Changes some of it. What it was still to be told goes to the new URL; if you disable it, nowhere."""
    row = webhooks.change_endpoint(
        resources, endpoint_id, owner, url=change.url,
        events=None if change.events is None else list(change.events), description=change.description,
        enabled=change.enabled,
    )  # fmt: skip
    return _show(row)


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    operation_id="delete_webhook_endpoint",
    responses=problems(401, 404, 422, 503) | {204: {"description": "Gone."}},
)
def delete_webhook_endpoint(endpoint_id: EndpointId, resources: ResourcesDep, owner: OwnerDep) -> None:
    """Deletes the endpoint. What it was still to be told is given up; the log stays."""
    webhooks.delete_endpoint(resources, endpoint_id, owner)


@router.get(
    "/{endpoint_id}/secret",
    operation_id="get_webhook_endpoint_secret",
    responses=problems(401, 404, 422, 503) | {200: {"description": "Its secret."}},
)
def get_webhook_endpoint_secret(
    endpoint_id: EndpointId, resources: ResourcesDep, owner: OwnerDep
) -> WebhookSecret:
    """What deliveries to this endpoint are signed with."""
    return show_secret(webhooks.endpoint_secret(resources, endpoint_id, owner))


@router.post(
    "/{endpoint_id}/secret/rotate",
    operation_id="rotate_webhook_endpoint_secret",
    responses=problems(401, 404, 422, 503) | {200: {"description": "The new secret."}},
)
def rotate_webhook_endpoint_secret(
    endpoint_id: EndpointId, resources: ResourcesDep, owner: OwnerDep, grace_s: Grace = A_DAY_S
) -> WebhookSecret:
    """A new secret for this endpoint. Both sign for a while; one before them stops at once."""
    grace = timedelta(seconds=grace_s)
    return show_secret(webhooks.rotate_endpoint_secret(resources, endpoint_id, owner, grace))

"""`/v1/webhooks/deliveries`: what was told to whom, each attempt, and once more."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field

from backend import views, webhooks
from backend.api import paging
from backend.api.dependencies import OwnerDep, RatedOwnerDep, ResourcesDep
from backend.api.documentation import problems
from backend.api.examples import DELIVERY_ID
from backend.jobs import deliveries, ids
from backend.jobs.deliveries import DeliveryStatus, Wanted
from backend.jobs.models import WebhookAttempt as AttemptRow
from backend.jobs.models import WebhookDelivery as DeliveryRow

router = APIRouter(prefix="/webhooks/deliveries", tags=["webhooks"])

DeliveryId = Annotated[UUID, Path(description="The delivery's id.", examples=[DELIVERY_ID])]


class WebhookAttempt(views.View):
    """One try at a delivery."""

    started_at: datetime
    status_code: int | None = Field(description="What the receiver answered; null: nothing.", examples=[500])
    reason: str | None = Field(description="Why it failed, for people; null: it didn't, or is not over.")
    duration_ms: int | None = Field(
        description="How long it took; null: it is not over, or its worker was lost."
    )


class WebhookDelivery(views.View):
    """One event, on its way to one receiver."""

    id: UUID
    webhook_id: str = Field(description="As in the header `webhook-id`: each time the same.")
    task_id: UUID = Field(description="The job that it tells of.")
    endpoint_id: UUID | None = Field(description="Who is told; null: the job's own webhook.")
    type: str = Field(description="Of the event.", examples=["job.completed"])
    status: DeliveryStatus = Field(
        description="`pending`: still to be made, perhaps after a failure; `delivered`: the receiver "
        "answered 2xx; `failed`: given up."
    )
    attempts: int = Field(description="How often it was tried, since it was last asked for.")
    last_error: str | None = Field(description="Why the last attempt failed; null: it didn't.")
    created_at: datetime
    next_attempt_at: datetime | None = Field(description="There while it is pending.")
    delivered_at: datetime | None


class WebhookDeliveryWithLog(WebhookDelivery):
    """A delivery, with each attempt at it."""

    log: list[WebhookAttempt] = Field(description="Oldest first.")


class WebhookDeliveryPage(views.View):
    """A part of the log, newest first."""

    results: list[WebhookDelivery]
    next: str | None = Field(
        default=None, description="URL of the page with older deliveries; null: there are none."
    )
    previous: str | None = Field(default=None, description="URL of the page with newer deliveries.")


def _show(row: DeliveryRow) -> WebhookDelivery:
    return WebhookDelivery(
        id=row.id, webhook_id=ids.webhook_id(row.job_id, row.seq), task_id=row.job_id,
        endpoint_id=row.endpoint_id, type=row.event.type, status=deliveries.status_of(row),
        attempts=row.attempts, last_error=row.last_error, created_at=row.created_at,
        next_attempt_at=row.due_at, delivered_at=row.delivered_at,
    )  # fmt: skip


def _show_with_log(row: DeliveryRow) -> WebhookDeliveryWithLog:
    log = [_show_attempt(attempt) for attempt in row.log]
    return WebhookDeliveryWithLog(**_show(row).model_dump(), log=log)


def _show_attempt(row: AttemptRow) -> WebhookAttempt:
    return WebhookAttempt(
        started_at=row.started_at, status_code=row.status_code, reason=row.reason,
        duration_ms=row.duration_ms,
    )  # fmt: skip


@router.get(
    "",
    operation_id="list_webhook_deliveries",
    responses=problems(401, 422, 503) | {200: {"description": "One page."}},
)
def list_webhook_deliveries(
    request: Request,
    resources: ResourcesDep,
    owner: OwnerDep,
    task_id: Annotated[UUID | None, Query(description="Those of this job only.")] = None,
    endpoint_id: Annotated[UUID | None, Query(description="Those to this endpoint only.")] = None,
    status: Annotated[DeliveryStatus | None, Query(description="Those in this state only.")] = None,
    cursor: Annotated[str | None, Query(max_length=64, description="From `next` or `previous`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
) -> WebhookDeliveryPage:
    """What was told to whom, newest first, in pages. It goes with its jobs."""
    at, wanted = paging.read_cursor(cursor), Wanted(task_id, endpoint_id, status)
    with resources.db.read_scope() as session:
        page = paging.cut(
            request, resources.settings.public_url, at, limit,
            lambda most: deliveries.page(session, owner, wanted, most, before=at.before, after=at.after),
        )  # fmt: skip
    return WebhookDeliveryPage(
        results=[_show(row) for row in page.rows], next=page.next, previous=page.previous
    )


@router.get("/{delivery_id}", operation_id="get_webhook_delivery", responses=problems(401, 404, 422, 503))
def get_webhook_delivery(
    delivery_id: DeliveryId, resources: ResourcesDep, owner: OwnerDep
) -> WebhookDeliveryWithLog:
    """One delivery, with each attempt at it."""
    return _show_with_log(webhooks.read_delivery(resources, delivery_id, owner))


@router.post(
    "/{delivery_id}/redeliver",
    status_code=202,
    operation_id="redeliver_webhook",
    responses=problems(401, 404, 409, 422, 429, 503) | {202: {"description": "The delivery, pending again."}},
)
def redeliver_webhook(
    delivery_id: DeliveryId, resources: ResourcesDep, owner: RatedOwnerDep
) -> WebhookDeliveryWithLog:
    """Sends it once more, whether it had come or not: signed anew, under the same `webhook-id`."""
    return _show_with_log(webhooks.redeliver(resources, delivery_id, owner))

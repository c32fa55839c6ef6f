"""`/v1/webhooks/secret`: what webhooks of single jobs are signed with."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from backend import views, webhooks
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import problems
from backend.webhooks import MOST_GRACE, Secret

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

Grace = Annotated[
    int,
    Query(
        ge=0,
        le=int(MOST_GRACE.total_seconds()),
        description="For so many seconds the secret that it replaces signs as well.",
    ),
]
A_DAY_S = 24 * 60 * 60


class WebhookSecret(views.View):
    """Verify webhooks with it, by Standard Webhooks."""

    secret: str = Field(
        description="`whsec_` and base64, as the libraries take it.",
        pattern="^whsec_",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )
    old_secret_until: datetime | None = Field(
        default=None,
        description="Until then there are two signatures, the other one by the secret before this one; "
        "null: this one alone signs.",
    )


def show_secret(secret: Secret) -> WebhookSecret:
    """As the outside sees it."""
    return WebhookSecret(secret=secret.text, old_secret_until=secret.old_until)


@router.get("/secret", operation_id="get_webhook_secret", responses=problems(401, 503))
def get_webhook_secret(resources: ResourcesDep, owner: OwnerDep) -> WebhookSecret:
    """The secret that webhooks of single jobs are signed with; it stays the same until you rotate it."""
    return show_secret(webhooks.owner_secret(resources, owner))


@router.post(
    "/secret/rotate",
    operation_id="rotate_webhook_secret",
    responses=problems(401, 422, 503) | {200: {"description": "The new secret."}},
)
def rotate_webhook_secret(
    resources: ResourcesDep, owner: OwnerDep, grace_s: Grace = A_DAY_S
) -> WebhookSecret:
    """A new secret for webhooks of single jobs. Both sign for a while; one before them stops at once."""
    return show_secret(webhooks.rotate_owner_secret(resources, owner, timedelta(seconds=grace_s)))

"""`GET /v1/webhooks/secret`: what webhooks are signed with."""

from fastapi import APIRouter
from pydantic import Field

from backend import views
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import problems
from backend.tasks.notify import webhook_secret

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class WebhookSecret(views.View):
    """Verify webhooks with it, by Standard Webhooks."""

    secret: str = Field(
        description="`whsec_` and base64, as the libraries take it.",
        pattern="^whsec_",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )


@router.get("/secret", operation_id="get_webhook_secret", responses=problems(401, 503))
def get_webhook_secret(resources: ResourcesDep, owner: OwnerDep) -> WebhookSecret:
    """The secret that your webhooks are signed with; it stays the same."""
    return WebhookSecret(secret=webhook_secret(resources.secret, owner))

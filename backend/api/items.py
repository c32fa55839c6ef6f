"""`GET /v1/jobs/{task_id}/items`: what became of each file of a job that takes files."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import Field

from backend import views
from backend.api import present
from backend.api.dependencies import OwnerDep, ResourcesDep, TaskId
from backend.api.documentation import problems
from backend.jobs import items
from backend.jobs.models import Status

router = APIRouter(prefix="/jobs", tags=["jobs"])


class ItemPage(views.View):
    """A part of a job's items, in their order."""

    results: list[views.Item]
    next: str | None = Field(default=None, description="URL of the next page; null: there is none.")


@router.get(
    "/{task_id}/items",
    operation_id="list_job_items",
    responses=problems(401, 404, 422, 503) | {200: {"description": "One page."}},
)
def list_job_items(
    task_id: TaskId,
    request: Request,
    resources: ResourcesDep,
    owner: OwnerDep,
    status: Annotated[Status | None, Query(description="Items in this state only.")] = None,
    cursor: Annotated[int | None, Query(ge=0, lt=10**9, description="From `next`.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="How many items at most.")] = 100,
) -> ItemPage:
    """All items of a job that takes files; of other jobs there are none."""
    with resources.db.read_scope() as session:
        job = present.find(session, task_id, owner)
        found = items.page(session, job.id, limit + 1, status=status, after=cursor)
    results = [views.render_item(resources, item, job) for item in found[:limit]]
    more = len(found) > limit
    return ItemPage(results=results, next=_next(request, resources, results[-1].index) if more else None)


def _next(request: Request, resources: ResourcesDep, after: int) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*kept, ("cursor", after)])
    return f"{resources.settings.public_url}{request.url.path}?{query}"

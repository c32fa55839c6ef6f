"""`GET /status/{task_id}`: how a job is, in the words of those who know Celery. Read from the database."""

from collections.abc import Iterable
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, JsonValue

from backend import views
from backend.api import present
from backend.api.dependencies import OwnerDep, ResourcesDep, TaskId
from backend.api.documentation import problems
from backend.jobs.models import Status

router = APIRouter(tags=["jobs"])

State = Literal["PENDING", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED"]
_STATES: dict[Status, State] = {
    Status.PENDING: "PENDING",
    Status.IN_PROGRESS: "PROGRESS",
    Status.COMPLETED: "SUCCESS",
    Status.PARTIALLY_COMPLETED: "SUCCESS",
    Status.FAILED: "FAILURE",
    Status.CANCELED: "REVOKED",
}


class FailedImage(views.View):
    """An image that could not be made, or a file of which none could."""

    index: int = Field(description="Its place in the job, from 0.")
    code: str = Field(description="Stable: branch on it.", examples=["out_of_memory"])
    message: str = Field(description="For people.")


class TaskResult(views.View):
    """What a job has come to."""

    images: list[views.Image] = Field(description="Those that were made, with their URLs.")
    items: list[views.Item] = Field(description="Of the first 100 files, those that became images.")
    failed: list[FailedImage] = Field(description="Those that were not, and why; of the first 100 files.")
    output: dict[str, JsonValue] | None = Field(description="Of a job that makes no images.")


class TaskStatus(views.View):
    """How a job is, as Celery would say it."""

    task_id: UUID
    status: State = Field(description="`SUCCESS` also where some images failed: `result.failed` lists them.")
    result: views.Progress | TaskResult | views.Error | None = Field(
        description="`PROGRESS`: how far it is; `SUCCESS`: what it has come to; `FAILURE`: why; "
        "null: `PENDING`, `REVOKED`."
    )


@router.get("/status/{task_id}", operation_id="get_task_status", responses=problems(401, 404, 422, 503))
def get_task_status(task_id: TaskId, resources: ResourcesDep, owner: OwnerDep) -> TaskStatus:
    """The job as Celery users know it: `task_id`, `status`, `result`. `/v1/jobs/{task_id}` says more."""
    job = present.read(resources, task_id, owner)
    state = _STATES[job.status]
    return TaskStatus(task_id=task_id, status=state, result=_result(job, state))


def _result(job: views.Job, state: State) -> views.Progress | TaskResult | views.Error | None:
    match state:
        case "PROGRESS":
            return job.progress
        case "SUCCESS":
            return TaskResult(
                images=[image for image in job.images if image.status == "completed"],
                items=[item for item in job.items if item.status == "completed"],
                failed=_failed(job.images) + _failed(job.items),
                output=job.output,
            )
        case "FAILURE":
            return job.error
    return None


def _failed(parts: Iterable[views.Image | views.Item]) -> list[FailedImage]:
    return [
        FailedImage(index=one.index, code=one.error.code, message=one.error.message)
        for one in parts
        if one.error
    ]

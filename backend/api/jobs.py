"""`/v1/jobs`: get, list, cancel, retry, delete."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field

from backend import submit, views
from backend.api import paging, present
from backend.api.answers import Answer, AnswersDep
from backend.api.dependencies import OwnerDep, RatedOwnerDep, ResourcesDep, TaskId
from backend.api.documentation import header, problems
from backend.api.feed import FeedDep
from backend.api.json_body import StrictRoute
from backend.errors import FieldError, InvalidRequest
from backend.jobs import queries
from backend.jobs.models import Status
from backend.jobs.queries import JobFilter
from backend.llm.base import MAX_PROMPT_CHARACTERS
from backend.pipelines import PIPELINES
from backend.pipelines.base import MAX_COUNT, RequestModel, Text

MAX_WAIT_S = 60
PageLimit = Annotated[int, Query(ge=1, le=100, description="How many jobs at most.")]
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)
_NAMES: dict[str, Any] = {"enum": sorted(PIPELINES)}


def _check_moment(value: object) -> object:
    """Numbers are no moments here: nobody could tell seconds from milliseconds."""
    if isinstance(value, str) and not _RFC3339.fullmatch(value):
        raise ValueError("must be a moment by RFC 3339, such as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_check_moment)]

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StrictRoute)


class ContinueRequest(RequestModel):
    """What a review came to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompts": ["A bookshop window at dusk", "A stack of old books"]}]}
    )

    prompts: list[Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_COUNT,
        description="In place of those that were written, one image each; null: as they are.",
    )


class JobPage(views.View):
    """A part of the list of jobs, newest first."""

    results: list[views.Job]
    next: str | None = Field(
        default=None, description="URL of the page with older jobs; null: there are none."
    )
    previous: str | None = Field(default=None, description="URL of the page with newer jobs.")


_ETAG = {"ETag": header("Changes whenever the job does."), "Cache-Control": header("`private, no-cache`.")}
_POLLED = _ETAG | {
    "Retry-After": header("When to ask again, in seconds; there until the job has ended.", "integer"),
    "Preference-Applied": header("The `wait` that was granted."),
}


@router.get(
    "/{task_id}",
    operation_id="get_job",
    response_model=views.Job,
    responses=problems(401, 404, 422, 503)
    | {
        200: {"description": "The job as it is now.", "headers": _POLLED},
        304: {"description": "Not changed since the ETag that was sent.", "headers": _POLLED},
    },
)
async def get_job(
    task_id: TaskId,
    owner: OwnerDep,
    answers: AnswersDep,
    feed: FeedDep,
    prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description="`wait=30` holds the answer until the job ends, at most so many seconds (60).",
            examples=["wait=30"],
        ),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(
            alias="If-None-Match", description="The `ETag` of the answer you have; 304 if it still holds."
        ),
    ] = None,
) -> Response:
    """The job. Its file URLs are signed anew; `ETag` and `If-None-Match` make polling cheap."""
    wait = _wait_of(prefer)
    answer = await run_in_threadpool(answers.read, task_id, owner)
    headers: dict[str, str] = {}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        if wait and not answer.ended:
            await feed.wait_for_end(task_id, wait)
            answer = await run_in_threadpool(answers.read, task_id, owner)
    if not answer.ended:
        headers["Retry-After"] = "1"
    return _cacheable(answer, if_none_match, headers)


def _cacheable(answer: Answer, if_none_match: str | None, headers: dict[str, str]) -> Response:
    headers["ETag"] = answer.etag
    headers["Cache-Control"] = "private, no-cache"
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, headers=headers, media_type="application/json")


def _wait_of(prefer: str | None) -> int | None:
    """Seconds of a `wait` preference, at most MAX_WAIT_S. What isn't understood is ignored (RFC 7240)."""
    for part in re.split(r"[,;]", prefer or ""):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not digits:
                return MAX_WAIT_S
            if digits.isascii() and digits.isdigit():
                return min(int(digits[:9]), MAX_WAIT_S)
    return None


@router.get(
    "", operation_id="list_jobs", responses=problems(401, 422, 503) | {200: {"description": "One page."}}
)
def list_jobs(
    request: Request,
    resources: ResourcesDep,
    owner: OwnerDep,
    status: Annotated[Status | None, Query(description="Jobs in this state only.")] = None,
    pipeline: Annotated[
        str | None, Query(description="Jobs of this pipeline only.", json_schema_extra=_NAMES)
    ] = None,
    created_after: Annotated[Moment | None, Query(description="Jobs accepted after this moment.")] = None,
    created_before: Annotated[Moment | None, Query(description="Jobs accepted before it.")] = None,
    cursor: Annotated[str | None, Query(max_length=64, description="From `next` or `previous`.")] = None,
    limit: PageLimit = 20,
) -> JobPage:
    """Your jobs, newest first, in pages."""
    if pipeline is not None and pipeline not in PIPELINES:
        known = ", ".join(sorted(PIPELINES))
        raise InvalidRequest(
            "There is no such pipeline.", errors=(FieldError("pipeline", f"known are: {known}"),)
        )
    wanted = JobFilter(
        status, [pipeline] if pipeline else None, _bounded(created_after), _bounded(created_before)
    )
    at = paging.read_cursor(cursor)
    with resources.db.read_scope() as session:
        page = paging.cut(
            request, resources.settings.public_url, at, limit,
            lambda most: queries.page(session, owner, wanted, most, before=at.before, after=at.after),
        )  # fmt: skip
        waits = [present.why_waiting(resources, session, job) for job in page.rows]
    results = present.present_all(resources, page.rows, waits)
    return JobPage(results=results, next=page.next, previous=page.previous)


def _bounded(moment: datetime | None) -> datetime | None:
    """Moments at the ends of the calendar can't be turned into UTC; no job is that old."""
    if moment is None or 1970 < moment.year < 9999:
        return moment
    return moment.replace(year=min(max(moment.year, 1971), 9998), day=min(moment.day, 28))


@router.post(
    "/{task_id}/cancel",
    operation_id="cancel_job",
    responses=problems(401, 404, 422, 503) | {200: {"description": "The job, which has ended."}},
)
def cancel_job(task_id: TaskId, resources: ResourcesDep, owner: OwnerDep) -> views.Job:
    """Stops the job; running images stop within a step, those that are stored stay. May be sent twice."""
    submit.cancel(resources, task_id, owner)
    return present.read(resources, task_id, owner)


@router.post(
    "/{task_id}/retry",
    status_code=202,
    operation_id="retry_job",
    responses=problems(401, 404, 409, 422, 429, 503) | {202: {"description": "The job, pending again."}},
)
def retry_job(task_id: TaskId, resources: ResourcesDep, owner: RatedOwnerDep) -> views.Job:
    """Runs again what failed, under the same id; the good images stay as they are."""
    submit.retry(resources, task_id, owner)
    return present.read(resources, task_id, owner)


@router.post(
    "/{task_id}/continue",
    status_code=202,
    operation_id="continue_job",
    responses=problems(400, 401, 404, 409, 413, 415, 422, 429, 503)
    | {202: {"description": "The job, at work again."}},
)
def continue_job(
    task_id: TaskId, resources: ResourcesDep, owner: RatedOwnerDep, body: ContinueRequest | None = None
) -> views.Job:
    """Lets a job go on that waits for a review of its prompts, with those that you send or as they are; or
    for its files, when they are uploaded.
    """
    submit.go_on(resources, task_id, owner, body.prompts if body else None)
    return present.read(resources, task_id, owner)


@router.delete(
    "/{task_id}",
    status_code=204,
    operation_id="delete_job",
    responses=problems(401, 404, 422, 503) | {204: {"description": "Gone."}},
)
def delete_job(task_id: TaskId, resources: ResourcesDep, owner: OwnerDep) -> None:
    """Deletes the job, its rows and its files."""
    submit.delete(resources, task_id, owner)

"""`POST /v1/<pipeline>`: a route for each registered pipeline, typed by its own request schema.

Those that begin with an event have one in common (`inbox`).
"""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from backend import submit, views
from backend.api.dependencies import RatedOwnerDep, ResourcesDep
from backend.api.documentation import header, job_links, problems
from backend.api.json_body import StrictRoute
from backend.pipelines import PIPELINES
from backend.pipelines.base import JobRequest, Pipeline

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        description="Send the same request again with the same key, and you get the first answer again.",
        examples=["order-17"],
    ),
]

CancelAfter = Annotated[
    str | None,
    Header(
        alias="Cancel-After",
        pattern=r"^([1-9][0-9]{0,5}s?|[1-9][0-9]{0,4}m([0-9]{1,5}s)?|[1-9][0-9]{0,3}h([0-9]{1,5}m)?([0-9]{1,5}s)?)$",
        description="Cancel the job if it has not ended by then: seconds, or `90s`, `5m`, `1h30m`.",
        examples=["5m"],
    ),
]
_UNITS_S = {"h": 3600, "m": 60, "s": 1, "": 1}


def create_router() -> APIRouter:
    """The routes of all pipelines that have their own."""
    router = APIRouter(tags=["pipelines"], route_class=StrictRoute)
    for pipeline in PIPELINES.values():
        if not pipeline.has_route:
            continue
        router.add_api_route(
            f"/{pipeline.name}",
            _endpoint(pipeline),
            methods=["POST"],
            status_code=202,
            response_model=views.Job,
            summary=pipeline.summary,
            description=pipeline.description,
            operation_id=f"create_{pipeline.name}",
            responses=problems(400, 401, 409, 413, 415, 422, 429, 503)
            | {202: accepted_as("The job.", job_links())},
        )
    return router


def accepted_as(location: str, links: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI says of an accepted submission."""
    return {
        "description": "Accepted and stored. Poll `Location`, or stream its events.",
        "headers": {
            "Location": header(location),
            "Retry-After": header("When to poll first, in seconds.", "integer"),
            "Idempotency-Replayed": header("There when this is the first answer again.", "boolean"),
        },
        "links": links,
    }


def _endpoint(pipeline: Pipeline) -> Callable[..., Response]:
    def create(
        body: JobRequest, resources: ResourcesDep, owner: RatedOwnerDep,
        idempotency_key: IdempotencyKey = None, cancel_after: CancelAfter = None,
    ) -> Response:  # fmt: skip
        done = submit.submit(
            resources,
            pipeline,
            body,
            owner=owner,
            idempotency_key=idempotency_key,
            cancel_after_s=seconds(cancel_after),
            answer=lambda job: views.as_json(views.render(resources, job)),
        )
        return accepted(done, "/v1/jobs")

    create.__annotations__["body"] = pipeline.request_schema
    return create


def seconds(duration: str | None) -> int | None:
    """Of a `Cancel-After`."""
    if duration is None:
        return None
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9]+)([hms]?)", duration))


def accepted(done: submit.Submission, folder: str) -> JSONResponse:
    """The 202."""
    headers: dict[str, Any] = {"Location": f"{folder}/{done.job_id}", "Retry-After": "1"}
    if done.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(done.answer, 202, headers)

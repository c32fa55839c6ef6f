"""`/v1/events`: what happened elsewhere, and what was done about it. Each event is a job, too."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ConfigDict, Field, JsonValue

from backend import submit, views
from backend.api import paging
from backend.api.dependencies import OwnerDep, RatedOwnerDep, ResourcesDep
from backend.api.documentation import event_links, problems
from backend.api.examples import TASK_ID
from backend.api.json_body import StrictRoute
from backend.api.pipelines import CancelAfter, IdempotencyKey, accepted, accepted_as, seconds
from backend.errors import FieldError, InvalidRequest, NotFound
from backend.jobs import queries
from backend.jobs.models import ENDED, Job, Status
from backend.jobs.queries import JobFilter
from backend.pipelines import EVENTS
from backend.pipelines.steps import EventPipeline, EventRequest, outputs_of
from backend.resources import Resources

router = APIRouter(tags=["events"], route_class=StrictRoute)

EventId = Annotated[
    UUID, Path(description="The event's id, as its submission was answered.", examples=[TASK_ID])
]
_TYPES: dict[str, Any] = {"enum": sorted(EVENTS)}
_BY_NAME = {pipeline.name: pipeline for pipeline in EVENTS.values()}


def _examples() -> list[JsonValue]:
    return [
        {"type": pipeline.event_type, "data": example}
        for pipeline in EVENTS.values()
        for example in _example_data(pipeline)
    ]


def _example_data(pipeline: EventPipeline[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pipeline.data_schema.model_json_schema().get("examples", [])
    return found


class NewEvent(EventRequest):
    """Something that happened."""

    model_config = ConfigDict(json_schema_extra={"examples": _examples()})

    type: str = Field(
        min_length=1,
        max_length=128,
        description="What happened: one of `GET /v1/event-types`.",
        json_schema_extra=_TYPES,
    )


class EventStep(views.View):
    """A step of what is done about an event."""

    name: str
    status: Status
    completed_at: datetime | None = Field(description="null: it isn't done.")


class Event(views.View):
    """Something that happened, and what came of it."""

    event_id: UUID = Field(description="UUIDv7.")
    task_id: UUID = Field(description="The same: the event is this job, too.")
    type: str = Field(description="What happened.", examples=["customer_message.received"])
    status: Status
    data: dict[str, JsonValue] = Field(description="As they were sent, with defaults filled in.")
    steps: list[EventStep] = Field(description="What is done about it, in order.")
    task_context: dict[str, JsonValue] = Field(
        description="What each step that is done has produced, by its name, in order."
    )
    output: dict[str, JsonValue] | None = Field(
        default=None, description="What the last step has produced, once the event is completed."
    )
    error: views.Error | None = Field(default=None, description="Why a step failed, if one did.")
    metadata: dict[str, JsonValue] = Field(description="As you sent it.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(default=None, description="When the first step was begun.")
    completed_at: datetime | None = Field(default=None, description="When it ended, however it ended.")
    expires_at: datetime | None = Field(default=None, description="When it is deleted; null: never.")
    urls: views.JobUrls = Field(description="Where to follow and steer its job.")


class EventPage(views.View):
    """A part of the list of events, newest first."""

    results: list[Event]
    next: str | None = Field(
        default=None, description="URL of the page with older events; null: there are none."
    )
    previous: str | None = Field(default=None, description="URL of the page with newer events.")


class EventType(views.View):
    """What may happen, and what is done about it."""

    type: str = Field(examples=["customer_message.received"])
    pipeline: str = Field(description="What handles it.", examples=["triage"])
    summary: str = Field(description="What is done about it, in a line.")
    description: str
    steps: list[str] = Field(description="Their names, in order.")
    data_schema: dict[str, JsonValue] = Field(description="JSON schema of `data`.")


class EventTypeList(views.View):
    """All types of events that are known."""

    results: list[EventType]


def _render(resources: Resources, row: Job) -> Event:
    job, pipeline = views.render(resources, row), _BY_NAME[row.pipeline]
    outputs, steps = outputs_of(row), _steps(pipeline, row)
    return Event(
        event_id=row.id,
        task_id=row.id,
        type=row.input["type"],
        status=row.status,
        data=row.input["data"],
        steps=steps,
        task_context={step.name: outputs[step.name] for step in steps if step.name in outputs},
        output=job.output,
        error=job.error,
        metadata=job.metadata,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        expires_at=job.expires_at,
        urls=job.urls,
    )


def _steps(pipeline: EventPipeline[Any], row: Job) -> list[EventStep]:
    """The pipeline's, and those that it had when the event came and has no more."""
    context = row.steps_done
    names = [step.name for step in pipeline.steps]
    names += sorted(name for name in context if name not in names)
    following = pipeline.next_step(row)
    steps = []
    for name in names:
        done = context.get(name)
        if done:
            step = EventStep(name=name, status=Status.COMPLETED, completed_at=done["completed_at"])
        else:
            is_next = following is not None and following.name == name
            step = EventStep(name=name, status=_status_of(row.status, is_next=is_next), completed_at=None)
        steps.append(step)
    return steps


def _status_of(status: Status, *, is_next: bool) -> Status:
    """Of a step that is not done."""
    if is_next or status is Status.CANCELED:
        return status
    return Status.PENDING


@router.post(
    "/events",
    status_code=202,
    operation_id="create_event",
    response_model=Event,
    responses=problems(400, 401, 409, 413, 415, 422, 429, 503)
    | {202: accepted_as("The event.", event_links())},
)
def create_event(
    body: NewEvent, resources: ResourcesDep, owner: RatedOwnerDep,
    idempotency_key: IdempotencyKey = None, cancel_after: CancelAfter = None,
) -> Response:  # fmt: skip
    """Stores an event, and has the pipeline of its type do what is to be done about it."""
    done = submit.submit(
        resources,
        _pipeline_of(body.type, "#/type"),
        body,
        owner=owner,
        idempotency_key=idempotency_key,
        cancel_after_s=seconds(cancel_after),
        answer=lambda job: views.as_json(_render(resources, job)),
    )
    return accepted(done, "/v1/events")


def _pipeline_of(event_type: str, where: str) -> EventPipeline[Any]:
    """Raises `InvalidRequest`."""
    pipeline = EVENTS.get(event_type)
    if pipeline is None:
        known = ", ".join(sorted(EVENTS))
        raise InvalidRequest(
            "There is no such type of event.", errors=(FieldError(where, f"known are: {known}"),)
        )
    return pipeline


@router.get(
    "/events",
    operation_id="list_events",
    responses=problems(401, 422, 503) | {200: {"description": "One page."}},
)
def list_events(
    request: Request,
    resources: ResourcesDep,
    owner: OwnerDep,
    type: Annotated[  # noqa: A002 - as clients call it
        str | None, Query(description="Events of this type only.", json_schema_extra=_TYPES)
    ] = None,
    status: Annotated[Status | None, Query(description="Events in this state only.")] = None,
    cursor: Annotated[str | None, Query(max_length=64, description="From `next` or `previous`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
) -> EventPage:
    """Your events, newest first, in pages."""
    names = [_pipeline_of(type, "type").name] if type is not None else list(_BY_NAME)
    at, wanted = paging.read_cursor(cursor), JobFilter(status, names)
    with resources.db.read_scope() as session:
        page = paging.cut(
            request, resources.settings.public_url, at, limit,
            lambda most: queries.page(session, owner, wanted, most, before=at.before, after=at.after),
        )  # fmt: skip
    return EventPage(
        results=[_render(resources, row) for row in page.rows], next=page.next, previous=page.previous
    )


@router.get("/events/{event_id}", operation_id="get_event", responses=problems(401, 404, 422, 503))
def get_event(event_id: EventId, resources: ResourcesDep, owner: OwnerDep, response: Response) -> Event:
    """The event, with what each step has produced by now."""
    with resources.db.read_scope() as session:
        row = queries.get(session, event_id, owner)
    if row is None or row.pipeline not in _BY_NAME:
        raise NotFound("There is no such event.")
    if row.status not in ENDED:
        response.headers["Retry-After"] = "1"
    return _render(resources, row)


@router.get(
    "/event-types",
    operation_id="list_event_types",
    responses=problems(401, 503),
)
def list_event_types(owner: OwnerDep) -> EventTypeList:  # noqa: ARG001 - who may ask at all
    """What may be sent to `/v1/events`, with the schema of its data."""
    return EventTypeList(
        results=[
            EventType(
                type=event_type,
                pipeline=pipeline.name,
                summary=pipeline.summary,
                description=pipeline.description,
                steps=[step.name for step in pipeline.steps],
                data_schema=pipeline.data_schema.model_json_schema(),
            )
            for event_type, pipeline in sorted(EVENTS.items())
        ]
    )

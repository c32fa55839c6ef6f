"""Pipelines that begin with an event and are made of named steps: how they are declared."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from celery.canvas import Signature
from pydantic import BaseModel, Field, JsonValue, ValidationError

from backend.celery_app import app
from backend.errors import FieldError, InvalidRequest
from backend.jobs.models import Job
from backend.pipelines.base import JobRequest, Pipeline, Prepared, json_of_at_most, words_of
from backend.resources import Resources
from contract.queues import CPU_QUEUES, DEFAULT_QUEUE, RUN_STEP

MAX_DATA_BYTES = 256 * 1024
GRACE_S = 30  # between the time when a step is told to end, and when it is ended

D = TypeVar("D", bound=BaseModel)


class EventRequest(JobRequest):
    """Something happened."""

    type: str = Field(min_length=1, max_length=128, description="What: one of `GET /v1/event-types`.")
    data: Annotated[dict[str, JsonValue], json_of_at_most(MAX_DATA_BYTES)] = Field(
        description="What is known of it: by the schema of its type. At most 256 KiB as JSON."
    )


@dataclass(frozen=True)
class Context(Generic[D]):
    """What a step is given, beside the resources."""

    task_id: UUID
    data: D  # the event's
    outputs: Mapping[str, Any]  # what the steps before it returned, by their names


@dataclass(frozen=True)
class Step(Generic[D]):
    """One step of a pipeline: it is done, and what it returned is stored, before the next one is begun.

    `function` returns an object of JSON, or a model that becomes one. It may be called again if its worker
    dies. It raises an `LLMError`, `ServiceUnavailable` or `StorageUnavailable` for what goes away by itself
    (it is called again later), and `StepFailed` with words for the client for what does not.
    """

    name: str
    function: Callable[[Resources, Context[D]], Mapping[str, Any] | BaseModel]
    queue: str = DEFAULT_QUEUE  # LLM_QUEUE for what asks a language model, MEDIA_QUEUE for what computes
    longest_s: int = 660  # after which it is told to end; a language model answers within 600

    def message(self, job: Job) -> Signature:
        """What a worker is told. Of several messages for the same step, the first has it in hand."""
        words = {"job_id": str(job.id), "run": job.run, "step": self.name, "token": secrets.token_hex(8)}
        options = {
            "queue": self.queue,
            "soft_time_limit": self.longest_s,
            "time_limit": self.longest_s + GRACE_S,
        }
        return Signature(RUN_STEP, kwargs=words, options=options, immutable=True, app=app)


@dataclass(frozen=True)
class EventPipeline(Generic[D]):
    """What is done about events of one type. `steps` in order; what the last returns is the job's output."""

    name: str
    event_type: str
    summary: str
    description: str
    data_schema: type[D]
    steps: tuple[Step[D], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for steps that could not be told apart, or could not be done."""
        names = [step.name for step in self.steps]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the pipeline {self.name} needs steps, each with a name of its own: {names}")
        unknown = sorted({step.queue for step in self.steps} - set(CPU_QUEUES))
        if unknown:
            raise ValueError(f"the pipeline {self.name} has steps in {unknown}; queues are {CPU_QUEUES}")

    request_schema = EventRequest
    has_route = False  # `POST /v1/events` is

    def prepare(
        self,
        request: EventRequest,
        resources: Resources,  # noqa: ARG002 - the protocol's
        *,
        owner: str,  # noqa: ARG002
    ) -> Prepared:
        """Checks the event's data by their schema."""
        given = {"type": self.event_type, "data": self._checked(request.data)}
        return Prepared(input=given, total=0, steps=[step.name for step in self.steps])

    def canvas(self, job: Job, *, planned: bool) -> Signature:  # noqa: ARG002 - there are no images
        """The step that is next; it sends the one after it."""
        return (self.next_step(job) or self.steps[-1]).message(job)

    def object_keys(self, job: Job) -> list[str]:  # noqa: ARG002 - the protocol's
        """It stores none."""
        return []

    def next_step(self, job: Job) -> Step[D] | None:
        """The first that is not done; None: all are."""
        done = outputs_of(job)
        return next((step for step in self.steps if step.name not in done), None)

    def context(self, job: Job) -> Context[D]:
        """Of a job, as it is now."""
        data = self.data_schema.model_validate_json(json.dumps(job.input["data"]))
        return Context(job.id, data, outputs_of(job))

    def _checked(self, data: dict[str, JsonValue]) -> dict[str, Any]:
        try:
            checked = self.data_schema.model_validate_json(json.dumps(data))
        except ValidationError as exc:
            errors = tuple(
                FieldError(_pointer(error["loc"]), words_of(error))
                for error in exc.errors(include_url=False, include_input=False)
            )
            raise InvalidRequest(f"These are no data of {self.event_type}.", errors=errors) from exc
        return checked.model_dump(mode="json", by_alias=True)


def outputs_of(job: Job) -> dict[str, Any]:
    """What the steps that are done have returned, by their names."""
    return {name: done["output"] for name, done in job.steps_done.items()}


def check_names(pipelines: Mapping[str, Pipeline]) -> None:
    """Raises ValueError where a pipeline goes by another name than its own, or two take the same events."""
    takes: dict[str, str] = {}
    for name, pipeline in pipelines.items():
        if pipeline.name != name:
            raise ValueError(f"PIPELINES has a pipeline as {name!r} whose name is {pipeline.name!r}")
        if isinstance(pipeline, EventPipeline):
            other = takes.setdefault(pipeline.event_type, name)
            if other != name:
                raise ValueError(f"{other} and {name} both take events of type {pipeline.event_type!r}")


def _pointer(path: tuple[int | str, ...]) -> str:
    parts = [str(part)[:100].replace("~", "~0").replace("/", "~1") for part in path]
    return "/".join(["#/data", *parts])

"""Runs pipelines that are made of steps: one task for all of them, which does one step and sends the next.

What a step produced is stored, under the lock of the job's row, before the next one is sent. So a worker that
dies costs the step that it had in hand and none of those before. A step is in one hand at a time; one that
kills its workers is left after a few, as it would kill all there are, again and again.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from celery import states
from celery.exceptions import Ignore, Retry
from pydantic import BaseModel

from backend import resources
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import (
    DatabaseUnavailable,
    LLMError,
    ServiceUnavailable,
    StepFailed,
    StorageUnavailable,
)
from backend.jobs import fairness, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job
from backend.pipelines import PIPELINES
from backend.pipelines.steps import EventPipeline, Step, outputs_of
from backend.resources import Resources
from backend.tasks import lifecycle, notify
from backend.tasks.base import PATIENCE, JobTask, ask_again, storable_text
from backend.tasks.holding import HELD_FOR, holding
from backend.views import now
from contract.queues import RUN_STEP, priority_of

log = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 1024 * 1024  # of a step, as JSON
MOST_LOSSES = 3  # workers that died over one step
LOST = Fault(
    "worker_lost", "The workers that did a step of the job were lost each time; perhaps because of it.",
    retryable=True,
)  # fmt: skip
LONGEST_PAUSE = timedelta(seconds=PATIENCE["retry_backoff_max"])


@app.task(name=RUN_STEP, bind=True, base=JobTask, soft_time_limit=660, time_limit=690, **PATIENCE)
def run_step(self: JobTask, *, job_id: str, run: int, step: str, token: str) -> None:
    """Does a step of the job, and sends the next one. What is done already isn't done again."""
    parts = resources.current()
    job, pipeline = _begun(parts, UUID(job_id), run, step, token, is_next_try=_is_next_try(self))
    notify.kick(parts, job)
    todo = pipeline.next_step(job)
    if todo is None or todo.name == step:
        with holding(parts, job.id, token):
            output = _do(self, parts, pipeline, job, todo, token) if todo else None
        job = _taken(parts, pipeline, job, step, output)
        notify.kick(parts, job)
        todo = pipeline.next_step(job)
    if todo is None:
        _show_end(parts, job)
    else:
        _send(parts, job, todo)


def pipeline_of(job: Job) -> EventPipeline[Any] | None:
    """The job's pipeline, if it is one that is made of steps."""
    pipeline = PIPELINES.get(job.pipeline)
    return pipeline if isinstance(pipeline, EventPipeline) else None


def _is_next_try(task: JobTask) -> bool:
    """Whether the message was sent by the step itself, which failed, and comes for the first time."""
    return bool(task.request.retries) and not (task.request.delivery_info or {}).get("redelivered")


def _begun(
    parts: Resources, job_id: UUID, run: int, step: str, token: str, *, is_next_try: bool
) -> tuple[Job, EventPipeline[Any]]:
    """The job, unless somebody else has its next step in hand. If that is this message's, we have it now.

    `is_next_try`: that we had it before is no sign that a worker has died over it.
    """
    with parts.db.session_scope() as session:
        job = store.begin(session, job_id, now(), run)
        pipeline = pipeline_of(job) if job else None
        if job is None or pipeline is None or not store.is_free(job, token, now()):
            raise Ignore
        losses = 0
        todo = pipeline.next_step(job)
        if todo is not None and todo.name == step:
            losses = _losses(job, step, token, is_next_try=is_next_try)
            store.claim(job, token, now() + HELD_FOR, now())
    if losses >= MOST_LOSSES:
        log.error("step %s of job %s is given up: %d workers died over it", step, job_id, losses)
        lifecycle.fail(job_id, LOST, run)
        raise Ignore
    return job, pipeline


def _losses(job: Job, step: str, token: str, *, is_next_try: bool) -> int:
    """How many workers have died over the step by now. Who ends a step in any way says so, or is to go on."""
    was_begun = job.claimed_by is not None and job.claimed_until is not None
    is_lost = was_begun and not (job.claimed_by == token and is_next_try)
    return store.lose_step(job, step) if is_lost else 0


def _do(
    task: JobTask, parts: Resources, pipeline: EventPipeline[Any], job: Job, step: Step[Any], token: str
) -> dict[str, Any]:
    _show_progress(pipeline, job, step)
    try:
        output = step.function(parts, pipeline.context(job))
    except LLMError as exc:
        later = ask_again(task, exc, parts.settings.llm_attempts)
        if isinstance(later, Retry):
            _hold_on(parts, job, token, timedelta(seconds=cast("float", later.when)))
        raise later from exc
    except (ServiceUnavailable, StorageUnavailable):
        _hold_on(parts, job, token, LONGEST_PAUSE)
        raise
    except BROKER_ERRORS as exc:  # it is the step's own, and nothing that the sweep would set right
        log.exception("step %s of job %s", step.name, job.id)
        raise StepFailed(f"The step {step.name} could not reach what it needs.") from exc
    return _kept(step, output)


def _kept(step: Step[Any], output: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    """As it is stored. Raises `StepFailed` where it is too much, TypeError where it is nothing of JSON."""
    whole = output.model_dump(mode="json") if isinstance(output, BaseModel) else output
    try:
        size = len(json.dumps(dict(whole), allow_nan=False))
        kept: dict[str, Any] = _storable(dict(whole))
    except (TypeError, ValueError, RecursionError) as exc:
        what = f"the step {step.name} has returned a {type(output).__name__}"
        raise TypeError(f"{what}, and not an object of JSON or a model that becomes one: {exc}") from exc
    if size > MAX_OUTPUT_BYTES:
        raise StepFailed(f"The step {step.name} has produced more than can be kept.")
    return kept


def _hold_on(parts: Resources, job: Job, token: str, wait: timedelta) -> None:
    """The step is still ours while its message waits for its next try."""
    with suppress(DatabaseUnavailable), parts.db.session_scope() as session:
        store.renew_claim(session, job.id, token, now() + wait + HELD_FOR)


def _storable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same, without what Postgres keeps in no text: language models write anything."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(str(name)): _storable(item) for name, item in value.items()}
    return value


def _taken(
    parts: Resources, pipeline: EventPipeline[Any], job: Job, step: str, output: dict[str, Any] | None
) -> Job:
    """Stores what the step has produced, and the job's end where it was the last. It is dropped where the job
    has ended meanwhile, or where another was faster. No output: there was nothing left to do.
    """
    with parts.db.session_scope() as session:
        locked = store.begin(session, job.id, now(), job.run)
        is_news = locked is not None and (
            output is None or store.take_step(session, locked, step, output, now())
        )
        if locked and is_news and pipeline.next_step(locked) is None:
            last = outputs_of(locked).get(pipeline.steps[-1].name, {})
            store.complete(session, locked, last, now(), parts.settings.job_ttl)
    if locked is None or not is_news:
        raise Ignore
    return locked


def _send(parts: Resources, job: Job, step: Step[Any]) -> None:
    """If the broker is away, the sweep finds that nobody does this step."""
    with parts.db.read_scope() as session:
        band = fairness.band_of_job(session, job)
    step.message(job).apply_async(priority=priority_of(band, parts.settings.broker_url))


# -- what Celery's users see under the job's id -------------------------------------------------------


def _show_progress(pipeline: EventPipeline[Any], job: Job, step: Step[Any]) -> None:
    made = outputs_of(job)
    done = [one.name for one in pipeline.steps if one.name in made]
    words = {"step": step.name, "completed": len(done), "total": len(pipeline.steps), "done": done}
    lifecycle.show(job.id, words, lifecycle.PROGRESS)


def _show_end(parts: Resources, job: Job) -> None:
    value = {"task_id": str(job.id), "status": job.status.value, "output": job.output}
    lifecycle.show(job.id, value, states.SUCCESS)
    lifecycle.end_signals(parts, job)

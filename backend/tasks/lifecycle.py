"""How a job ends, and what nodes report of its images."""

import logging
from typing import Any
from uuid import UUID

import redis
from celery import states
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from backend import resources
from backend.celery_app import app
from backend.errors import FanfareError
from backend.jobs import fairness, queries, store
from backend.jobs.models import Job, Status
from backend.jobs.store import Fault
from backend.resources import Resources
from backend.tasks import notify
from backend.views import now
from contract.messages import FailureCode, GeneratedImage, ImageFailure, ImageResult, ImageStarted
from contract.queues import IMAGE_ENDED, IMAGE_STARTED, SAVE_IMAGES

log = logging.getLogger(__name__)

_RESULT: TypeAdapter[GeneratedImage | ImageFailure] = TypeAdapter(ImageResult)
PATIENCE: dict[str, Any] = {
    "autoretry_for": (FanfareError,),
    "retry_backoff": 1,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 30,
}


class JobFailed(Exception):
    """What `AsyncResult(task_id).get()` raises for a job that failed: its code and message."""


def begin(parts: Resources, job_id: UUID, run: int) -> Job | None:
    """A worker begins with a step of the job. None: it has ended, or this is a step of an earlier run."""
    with parts.db.session_scope() as session:
        job = store.begin(session, job_id, now())
        return job if job and job.run == run else None


def fail(job_id: UUID, fault: Fault) -> None:
    """Ends the job as failed, once, everywhere: database, result store, webhooks."""
    parts = resources.current()
    with parts.db.session_scope() as session:
        ended = store.fail(session, job_id, fault, now(), parts.settings.job_ttl)
        job = queries.get(session, job_id)
    if ended and job:
        publish_end(parts, job)
        notify.kick(parts, job_id)


def publish_end(parts: Resources, job: Job) -> None:
    """Lets `AsyncResult(task_id)` end as the job did. The database is the truth; this is for Celery users."""
    state: str
    error: Exception
    if job.status is Status.CANCELED:
        state, error = states.REVOKED, TaskRevokedError("canceled")
    else:
        state, error = states.FAILURE, JobFailed(f"{job.error_code}: {job.error_message}")
    try:
        app.backend.store_result(str(job.id), error, state)
    except (redis.RedisError, OperationalError, RuntimeError) as exc:
        log.warning("the end of job %s did not reach the result store: %s", job.id, exc)
    forget_signals(parts, job.id)


def forget_signals(parts: Resources, job_id: UUID) -> None:
    """The job has ended: nobody asks any more how far its images are."""
    try:
        parts.signals.forget(job_id)
    except redis.RedisError as exc:
        log.debug("progress of job %s is left to expire: %s", job_id, exc)


def forget_result(parts: Resources, job_id: UUID) -> None:
    """The job is deleted: Celery's users find nothing under its id."""
    try:
        app.backend.forget(str(job_id))
    except (redis.RedisError, OperationalError, RuntimeError) as exc:
        log.debug("the result of job %s is left to expire: %s", job_id, exc)
    forget_signals(parts, job_id)


def stop_nodes(parts: Resources, job_id: UUID) -> None:
    """Tells the nodes that nobody wants this job's images any more."""
    try:
        parts.signals.cancel(job_id)
    except redis.RedisError as exc:
        log.warning("the cancel flag of job %s did not reach the result store: %s", job_id, exc)


@app.task(name=IMAGE_STARTED, **PATIENCE)
def image_started(message: dict[str, Any]) -> None:
    """A node has begun with an image."""
    started = ImageStarted.model_validate(message)
    parts = resources.current()
    with parts.db.session_scope() as session:
        store.image_started(session, started, now())
    notify.kick(parts, started.job_id)


@app.task(name=IMAGE_ENDED, **PATIENCE)
def image_ended(message: dict[str, Any]) -> None:
    """A node has stored an image, or has given it up."""
    result = _RESULT.validate_python(message)
    parts = resources.current()
    with parts.db.session_scope() as session:
        take_result(session, result)
        run = fairness.run_beside_its_chord(session, result.job_id)
    if run is not None:
        save = app.signature(SAVE_IMAGES, args=([],), kwargs={"job_id": str(result.job_id), "run": run})
        save.apply_async(task_id=str(result.job_id), ignore_result=False)
    notify.kick(parts, result.job_id)


def parse_result(message: object) -> GeneratedImage | ImageFailure:
    """A node's report. Raises pydantic's `ValidationError`."""
    return _RESULT.validate_python(message)


def take_result(session: Session, result: GeneratedImage | ImageFailure) -> None:
    """Writes a node's report to its row. An expired upload URL is not the image's end: it is made anew."""
    if isinstance(result, GeneratedImage):
        store.image_generated(session, result, now())
    elif result.code not in (FailureCode.UPLOAD_EXPIRED, FailureCode.CANCELED):
        store.image_failed(session, result, now())

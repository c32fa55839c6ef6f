"""How a job begins and ends, everywhere: database, result store, webhooks."""

import logging
from typing import Any
from uuid import UUID

import redis
from celery import states
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError

from backend import resources
from backend.celery_app import app
from backend.errors import FanfareError
from backend.jobs import queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status
from backend.products import store as products
from backend.resources import Resources
from backend.tasks import notify
from backend.views import now

log = logging.getLogger(__name__)

PROGRESS = "PROGRESS"  # as Celery's users call it
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
        job = store.begin(session, job_id, now(), run)
    if job:
        notify.kick(parts, job)
    return job


def fail(job_id: UUID, fault: Fault, run: int | None = None) -> None:
    """Ends the job (in this run) as failed, once, everywhere: database, result store, webhooks."""
    parts, at = resources.current(), now()
    with parts.db.session_scope() as session:
        ended = store.fail(session, job_id, fault, at, parts.settings.job_ttl, run)
        if ended:
            products.record_failures(session, job_id, at)
        job = queries.get(session, job_id)
    if ended and job:
        publish_end(parts, job)
        notify.kick(parts, job)


def publish_end(parts: Resources, job: Job) -> None:
    """Lets `AsyncResult(task_id)` end as the job did. The database is the truth; this is for Celery users."""
    state: str
    error: Exception
    if job.status is Status.CANCELED:
        state, error = states.REVOKED, TaskRevokedError("canceled")
    else:
        state, error = states.FAILURE, JobFailed(f"{job.error_code}: {job.error_message}")
    show(job.id, error, state)
    end_signals(parts, job)


def show(job_id: UUID, value: object, state: str) -> None:
    """Lets Celery's users see this under the job's id."""
    try:
        app.backend.store_result(str(job_id), value, state)
    except (redis.RedisError, OperationalError, RuntimeError) as exc:
        log.warning("%s of job %s did not reach the result store: %s", state, job_id, exc)


def end_signals(parts: Resources, job: Job) -> None:
    """The job has ended: nodes are told, and nobody asks any more how far its images are."""
    unmade = any(image.generated_at is None or image.sends > 1 for image in job.images)
    try:
        parts.signals.end(job.id, job.run, [image.id for image in job.images], may_wait=unmade)
    except redis.RedisError as exc:
        log.warning("the end of job %s did not reach the nodes: %s", job.id, exc)


def forget_result(parts: Resources, job: Job) -> None:
    """The job is deleted: Celery's users find nothing under its id."""
    try:
        app.backend.forget(str(job.id))
    except (redis.RedisError, OperationalError, RuntimeError) as exc:
        log.debug("the result of job %s is left to expire: %s", job.id, exc)
    end_signals(parts, job)

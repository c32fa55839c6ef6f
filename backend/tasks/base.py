"""What all tasks of a job share: a job whose task ends in an error ends too, with a code."""

import logging
import random
from typing import Any
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task
from celery.exceptions import Retry

from backend.celery_app import BROKER_ERRORS
from backend.errors import BrokerUnavailable, FanfareError, LLMError, ServiceUnavailable, StorageUnavailable
from backend.jobs.faults import Fault
from backend.tasks import lifecycle

log = logging.getLogger(__name__)

# What goes away by itself: tried again with growing pauses, at most half an hour in all.
PATIENCE = lifecycle.PATIENCE | {"autoretry_for": (ServiceUnavailable, StorageUnavailable)}
REPLACEMENT = "\ufffd"
BROKER_AWAY = (BrokerUnavailable, *BROKER_ERRORS)  # while a task sent its successors


class JobTask(Task[Any, Any]):
    """A task whose first argument after any result is a job's id, given as `job_id`."""

    abstract = True

    def on_failure(
        self,
        exc: Exception,
        task_id: str,  # noqa: ARG002 - Celery's signature
        args: tuple[Any, ...],  # noqa: ARG002
        kwargs: dict[str, Any],
        einfo: object,  # noqa: ARG002
    ) -> None:
        """Called once, after the last retry."""
        if isinstance(exc, BROKER_AWAY):
            # no fault of the job's: the sweep sends it again
            log.warning("task %s of job %s: the broker is away (%s)", self.name, kwargs.get("job_id"), exc)
            return
        log.error("task %s failed", self.name, exc_info=exc, extra={"job_id": kwargs.get("job_id")})
        lifecycle.fail(UUID(kwargs["job_id"]), fault_of(exc), kwargs.get("run"))


def ask_again(task: JobTask, exc: LLMError, attempts: int) -> LLMError | Retry:
    """What to raise where the language model failed: that the task is tried again later, or the error itself
    where that makes no sense, or not any more.
    """
    tries = task.request.retries + 1
    if not exc.retryable or tries >= attempts:
        return exc
    wait = max(1.0, exc.retry_after_s or 2**tries * (0.5 + random.random()))  # noqa: S311
    job_id = (task.request.kwargs or {}).get("job_id")
    log.warning("%s of job %s: %s, attempt %s; again in %.0f s", task.name, job_id, exc.code, tries, wait)
    return task.retry(exc=exc, countdown=wait, max_retries=attempts, throw=False)


def fault_of(exc: BaseException) -> Fault:
    """What the client is told of an error: our own in our own words, all others without detail."""
    if isinstance(exc, FanfareError):
        return Fault(exc.code, storable_text(exc.detail), exc.retryable)
    if isinstance(exc, SoftTimeLimitExceeded):
        return Fault("deadline_exceeded", "A step of the job took too long.", retryable=True)
    return Fault("internal", "Something went wrong on our side. Retry may help.", retryable=True)


def storable_text(text: str) -> str:
    """The same, without what Postgres keeps in no text: language models write anything."""
    return text.replace("\x00", REPLACEMENT).encode("utf-8", "replace").decode()

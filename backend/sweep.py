"""Finds what is late and sets it right. Run by beat every few seconds; running it twice at once is harmless.

The broker only carries: what it lost is found here, by the database, and sent again.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
from amqp.exceptions import AMQPError, ChannelError
from kombu.exceptions import OperationalError

from backend import references, resources, retention, submit
from backend.celery_app import app
from backend.errors import BrokerUnavailable, ReferenceUnavailable, StorageError
from backend.jobs import events, fairness, queries, store
from backend.jobs.models import ENDED, ImageGeneration, Job, Status
from backend.jobs.store import Fault
from backend.nodes import Snapshot
from backend.resources import Resources
from backend.tasks import gpu, lifecycle, notify
from backend.tasks.references import ATTEMPTS as FETCH_ATTEMPTS
from backend.views import now
from contract.queues import CPU_QUEUES, SWEEP, gpu_queue

log = logging.getLogger(__name__)

UNDISPATCHED_AFTER = timedelta(seconds=2)  # the submitting process has had its chance
IDEMPOTENCY_TTL = timedelta(hours=24)


@app.task(name=SWEEP, soft_time_limit=240, time_limit=300)
def sweep() -> None:
    """One round."""
    parts = resources.current()
    try:
        _dispatch_waiting(parts)
        _rescue_silent(parts)
        _move_forward(parts)
    except BrokerUnavailable:
        log.warning("the broker is away; the next sweep tries again")
    _cancel_late(parts)
    _fail_overdue(parts)
    _deliver_due(parts)
    _expire(parts)
    _erase_deleted(parts)
    with parts.db.session_scope() as session:
        queries.drop_old_idempotency_keys(session, now(), IDEMPOTENCY_TTL)


def _dispatch_waiting(parts: Resources) -> None:
    with parts.db.read_scope() as session:
        waiting = queries.undispatched(session, now() - UNDISPATCHED_AFTER)
    for job_id in waiting:
        log.info("job %s was accepted and never dispatched: dispatched now", job_id)
        submit.dispatch(parts, job_id)


def _rescue_silent(parts: Resources) -> None:
    """Sends a job again when the broker had it and nobody can be at work on it any more."""
    quiet = now() - timedelta(seconds=parts.settings.redispatch_after_s)
    with parts.db.read_scope() as session:
        silent = queries.silent(session, quiet)
    for job_id in silent:
        with parts.db.read_scope() as session:
            job = queries.get(session, job_id)
        if job and _is_lost(parts, job):
            log.warning("job %s (%s) was lost on its way: dispatched again", job_id, job.status.value)
            submit.dispatch(parts, job_id)


def _move_forward(parts: Resources) -> None:
    """Whoever was passed over for long gets some images to the front. Raises `BrokerUnavailable`."""
    patience = timedelta(seconds=parts.settings.move_forward_after_s)
    with parts.db.read_scope() as session:
        passed_over = fairness.passed_over(session, now(), patience)
    for job_id in passed_over:
        with parts.db.session_scope() as session:
            job = store.lock(session, job_id)
            if job is None or not parts.nodes.snapshot().serving(job.input["model"]):
                continue  # nobody passes: they all wait
            images = fairness.move_forward(session, job, now())
        log.info("job %s was passed over for long: %d of its images go first", job_id, len(images))
        _send_forward(parts, job, images)


def _send_forward(parts: Resources, job: Job, images: Sequence[ImageGeneration]) -> None:
    """What isn't sent here is still where it was queued before."""
    try:
        gpu.send_forward(parts, job, images)
    except ReferenceUnavailable as exc:
        log.warning("images of job %s stay where they wait: %s", job.id, exc.detail)
    except (OperationalError, redis.RedisError, OSError) as exc:
        raise BrokerUnavailable from exc


def _is_lost(parts: Resources, job: Job) -> bool:
    if any(_waiting_in(queue) for queue in CPU_QUEUES):
        return False  # workers are behind: its turn may come
    if not job.images:
        writing = job.status is Status.IN_PROGRESS
        return not writing or now() - job.updated_at > _longest_writing(parts, job)
    if not any(image.generated_at is None and image.status not in ENDED for image in job.images):
        return now() - job.updated_at > timedelta(minutes=2)  # its callback never fired, or is at work
    model = job.images[0].model
    snapshot = parts.nodes.snapshot()
    if not snapshot.reachable:
        return False
    if _is_orphaned(job, snapshot):
        return True
    busy = any(node.running for node in snapshot.serving(model))
    return not busy and not _waiting_in(gpu_queue(model))


def _is_orphaned(job: Job, snapshot: Snapshot) -> bool:
    """Whether an image was begun by a node that is gone, and nothing has been done about it yet."""
    live = {node.node for node in snapshot.nodes}
    unheard = job.dispatched_at is not None and job.dispatched_at > job.updated_at
    return not unheard and any(
        image.status is Status.IN_PROGRESS and image.generated_at is None and image.node not in live
        for image in job.images
    )


def _longest_writing(parts: Resources, job: Job) -> timedelta:
    """How long it may take until its prompts are there."""
    settings = parts.settings
    fetching = settings.reference_timeout_s * FETCH_ATTEMPTS * len(references.roles(job.input))
    return timedelta(seconds=fetching + settings.llm_timeout_s * settings.llm_attempts + 120)


def _waiting_in(queue: str) -> int:
    """Messages in a queue that nobody has taken. Raises `BrokerUnavailable`."""
    try:
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            declared = channel.queue_declare(queue, passive=True)
            return int(declared.message_count)
    except ChannelError:  # no such queue: nothing waits in it
        return 0
    except (OperationalError, OSError, AMQPError) as exc:
        raise BrokerUnavailable from exc


def _cancel_late(parts: Resources) -> None:
    with parts.db.read_scope() as session:
        late = queries.to_cancel(session, now())
    for job_id in late:
        submit.cancel_late(parts, job_id)


def _fail_overdue(parts: Resources) -> None:
    with parts.db.read_scope() as session:
        late = queries.overdue(session, now())
    for job_id in late:
        lifecycle.fail(job_id, _why_overdue(parts, job_id))


def _why_overdue(parts: Resources, job_id: UUID) -> Fault:
    with parts.db.read_scope() as session:
        job = queries.get(session, job_id)
    model = job.input.get("model") if job else None
    if model and not parts.nodes.snapshot().serving(model):
        return Fault("no_worker_for_model", f"No worker served the model {model} in time.", retryable=True)
    return Fault("deadline_exceeded", "The job was not done in time.", retryable=True)


def _deliver_due(parts: Resources) -> None:
    with parts.db.read_scope() as session:
        due = events.due_deliveries(session, now())
    for job_id, seq in due:
        notify.send(job_id, seq)


def _expire(parts: Resources) -> None:
    retention.keep_dates(parts.db, parts.settings.job_ttl)
    retention.expire(parts.db, parts.settings.job_ttl)


def _erase_deleted(parts: Resources) -> None:
    try:
        retention.erase_deleted(parts.db, parts.storage)
    except StorageError as exc:
        log.warning("objects of deleted jobs can't be deleted yet: %s", exc.detail)

"""Finds what is late and sets it right. Run by beat every few seconds; running it twice at once is harmless.

The broker only carries: what it lost is found by the database (`rescue`), and sent again.
"""

import logging
from datetime import timedelta
from uuid import UUID

from backend import rescue, resources, retention, submit
from backend.celery_app import app
from backend.errors import BrokerUnavailable, ReferenceUnavailable, StorageError
from backend.jobs import events, fairness, queries, store
from backend.jobs.store import Fault
from backend.resources import Resources
from backend.tasks import gpu, lifecycle, notify
from backend.views import now
from contract.queues import SWEEP

log = logging.getLogger(__name__)

UNDISPATCHED_AFTER = timedelta(seconds=2)  # the submitting process has had its chance
IDEMPOTENCY_TTL = timedelta(hours=24)


@app.task(name=SWEEP, soft_time_limit=240, time_limit=300)
def sweep() -> None:
    """One round."""
    parts = resources.current()
    try:
        _dispatch_waiting(parts)
        rescue.rescue(parts)
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
            store.sending(images, now())
        log.info("job %s was passed over for long: %d of its images go first", job_id, len(images))
        try:
            gpu.send(parts, job, images)
        except ReferenceUnavailable as exc:
            log.warning("images of job %s stay where they wait: %s", job_id, exc.detail)


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

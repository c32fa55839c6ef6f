"""Finds what is late and sets it right. Run by beat every few seconds; running it twice at once is harmless.

The broker only carries: what it lost is found by the database (`rescue`), and sent again.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import redis
from billiard.exceptions import SoftTimeLimitExceeded

from backend import rescue, resources, retention, submit
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import FanfareError, ReferenceUnavailable, StorageError
from backend.jobs import fairness, queries, store
from backend.jobs.faults import Fault
from backend.products import erasing
from backend.resources import Resources
from backend.tasks import gpu, lifecycle, notify
from backend.views import now
from contract.queues import SWEEP

log = logging.getLogger(__name__)

UNDISPATCHED_AFTER = timedelta(seconds=2)  # the submitting process has had its chance
LONGEST_S = 120
TURN_S = 30  # of one that died
IDEMPOTENCY_TTL = timedelta(hours=24)


@app.task(name=SWEEP, soft_time_limit=LONGEST_S - 10, time_limit=LONGEST_S)
def sweep() -> None:
    """One round, unless another one is at work. What fails in it keeps nothing else from being done."""
    parts = resources.current()
    if not _is_my_turn(parts):
        return
    try:
        for part in (
            _dispatch_waiting, rescue.rescue, _move_forward, _cancel_late, _fail_overdue, notify.send_all_due,
            _expire, _erase_deleted, _erase_products, _forget_keys,
        ):  # fmt: skip
            _do(part, parts)
    finally:
        _end_my_turn(parts)


def _do(part: Callable[[Resources], None], parts: Resources) -> None:
    try:
        part(parts)
    except FanfareError as exc:
        log.warning("%s: %s; the next sweep tries again", part.__name__.strip("_"), exc.detail)
    except BROKER_ERRORS as exc:
        log.warning("%s: %s; the next sweep tries again", part.__name__.strip("_"), type(exc).__name__)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # ours to mend; until then all that is late would wait for it
        log.exception("%s broke off; the next sweep tries again", part.__name__.strip("_"))


def _is_my_turn(parts: Resources) -> bool:
    """Two sweeps at once do no harm, but many of them leave workers no time for jobs."""
    try:
        return parts.signals.take_turn(SWEEP, TURN_S)
    except redis.RedisError:
        return True


def _end_my_turn(parts: Resources) -> None:
    with suppress(redis.RedisError):
        parts.signals.end_turn(SWEEP)


def _forget_keys(parts: Resources) -> None:
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


def _expire(parts: Resources) -> None:
    retention.keep_dates(parts.db, parts.settings.job_ttl)
    retention.expire(parts.db, parts.settings.job_ttl)


def _erase_deleted(parts: Resources) -> None:
    try:
        retention.erase_deleted(parts.db, parts.storage)
    except StorageError as exc:
        log.warning("objects of deleted jobs can't be deleted yet: %s", exc.detail)


def _erase_products(parts: Resources) -> None:
    try:
        erasing.erase_deleted(parts.db, parts.storage, now())
    except StorageError as exc:
        log.warning("objects of deleted products can't be deleted yet: %s", exc.detail)

"""The log of each job: numbered without a gap, and the webhooks that follow from it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from backend.jobs.models import Job, JobEvent, Status, WebhookDelivery

ENDINGS: dict[Status, str] = {
    Status.COMPLETED: "job.completed",
    Status.PARTIALLY_COMPLETED: "job.partially_completed",
    Status.FAILED: "job.failed",
    Status.CANCELED: "job.canceled",
}

LEASE = timedelta(seconds=60)  # a delivery in hand is not begun again for this long
# A delivery in the broker counts as lost if nobody has taken it for so long; the first: of an empty queue
LOST_SOON, LOST_AFTER = timedelta(minutes=1), timedelta(minutes=5)


def record(session: Session, job: Job, event_type: str, data: dict[str, Any], now: datetime) -> JobEvent:
    """Appends to the job's log. The job's row must be locked: that is what keeps the numbers in order."""
    job.last_event += 1
    job.updated_at = now
    if job in session.new:  # its row comes first: nothing else tells the session that the event needs it
        session.flush()
    event = JobEvent(job_id=job.id, seq=job.last_event, type=event_type, data=data, created_at=now)
    session.add(event)
    if job.webhook and event_type in job.webhook["events"]:
        session.add(WebhookDelivery(job_id=job.id, seq=event.seq, attempts=0, due_at=now))
    return event


def since(session: Session, job_id: UUID, seq: int, limit: int = 500) -> list[JobEvent]:
    """The job's events after number `seq`, oldest first."""
    query = (
        sa.select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.seq > seq)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    return list(session.scalars(query))


def newest(session: Session, job_ids: list[UUID]) -> dict[UUID, int]:
    """Number of each job's newest event; a job that is gone is missing."""
    if session.get_bind().dialect.name == "postgresql":  # one parameter: there may be thousands
        ids = sa.bindparam("ids", job_ids, postgresql.ARRAY(sa.Uuid()))
        watched = Job.id == sa.any_(ids)
    else:
        watched = Job.id.in_(job_ids)
    query = sa.select(Job.id, Job.last_event).where(watched, Job.deleted_at.is_(None))
    return {job_id: seq for job_id, seq in session.execute(query)}  # noqa: C416 - rows are no pairs to mypy


# -- webhooks -----------------------------------------------------------------------------------------


def wait_in_the_broker(session: Session, now: datetime) -> bool:
    """Whether a delivery was sent to the broker LOST_SOON ago, and nobody has taken it."""
    query = sa.exists().where(WebhookDelivery.due_at <= now, WebhookDelivery.sent_at < now - LOST_SOON)
    return bool(session.scalar(sa.select(query)))


def take_due(
    session: Session,
    now: datetime,
    job_id: UUID | None = None,
    *,
    lost_after: timedelta = LOST_AFTER,
    limit: int = 200,
) -> list[tuple[UUID, int]]:
    """Deliveries whose time has come (of this job), as (job id, seq).

    They count as sent to the broker: until a worker has claimed them, or `lost_after`, nobody else gets them.
    """
    query = (
        sa.select(WebhookDelivery)
        .where(
            WebhookDelivery.due_at <= now,
            sa.or_(WebhookDelivery.sent_at.is_(None), WebhookDelivery.sent_at < now - lost_after),
        )
        .order_by(WebhookDelivery.due_at, WebhookDelivery.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if job_id is not None:
        query = query.where(WebhookDelivery.job_id == job_id)
    due = list(session.scalars(query))
    for delivery in due:
        delivery.sent_at = now
    return [(delivery.job_id, delivery.seq) for delivery in due]


def claim_delivery(
    session: Session, job_id: UUID, seq: int, now: datetime
) -> tuple[WebhookDelivery, JobEvent] | None:
    """Takes a due delivery in hand: for LEASE nobody else does. None: it isn't due."""
    query = (
        sa.select(WebhookDelivery)
        .where(WebhookDelivery.job_id == job_id, WebhookDelivery.seq == seq, WebhookDelivery.due_at <= now)
        .with_for_update()
    )
    delivery = session.scalar(query)
    if delivery is None:
        return None
    delivery.attempts += 1
    delivery.due_at, delivery.sent_at = now + LEASE, None
    return delivery, session.get_one(JobEvent, (job_id, seq))


def _delivery(session: Session, job_id: UUID, seq: int) -> WebhookDelivery | None:
    return session.get(WebhookDelivery, (job_id, seq))


def delivered(session: Session, job_id: UUID, seq: int, now: datetime) -> None:
    """The receiver has it."""
    if delivery := _delivery(session, job_id, seq):
        delivery.due_at, delivery.delivered_at, delivery.last_error = None, now, None


def abandon_delivery(session: Session, job_id: UUID, seq: int, reason: str) -> None:
    """It will not be tried again."""
    if delivery := _delivery(session, job_id, seq):
        delivery.due_at, delivery.last_error = None, reason


def postpone_delivery(
    session: Session,
    job_id: UUID,
    seq: int,
    reason: str,
    now: datetime,
    retry_after_s: Sequence[float],
    jitter: float,
) -> datetime | None:
    """It failed: when it is tried again, or None after the last attempt.

    `retry_after_s` are the waits after each attempt, to which up to a fifth is added; `jitter` is 0 to 1.
    """
    delivery = _delivery(session, job_id, seq)
    if delivery is None:
        return None
    delivery.last_error = reason
    waits = retry_after_s[delivery.attempts - 1 : delivery.attempts]
    delivery.due_at = now + timedelta(seconds=waits[0] * (1 + 0.2 * jitter)) if waits else None
    return delivery.due_at

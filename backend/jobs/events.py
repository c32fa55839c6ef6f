"""The log of each job: numbered without a gap, and the webhooks that follow from it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from backend.jobs import deliveries
from backend.jobs.models import Job, JobEvent, Status

ENDINGS: dict[Status, str] = {
    Status.COMPLETED: "job.completed",
    Status.PARTIALLY_COMPLETED: "job.partially_completed",
    Status.FAILED: "job.failed",
    Status.CANCELED: "job.canceled",
}


def record(session: Session, job: Job, event_type: str, data: dict[str, Any], now: datetime) -> JobEvent:
    """Appends to the job's log. The job's row must be locked: that is what keeps the numbers in order."""
    job.last_event += 1
    job.updated_at = now
    if job in session.new:  # its row comes first: nothing else tells the session that the event needs it
        session.flush()
    event = JobEvent(job_id=job.id, seq=job.last_event, type=event_type, data=data, created_at=now)
    session.add(event)
    deliveries.record(session, job, event)
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

"""Deliveries of webhooks: recorded with the event, claimed, noted, and kept as a log.

None of these functions commits; none of them sends anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, selectinload

from backend.errors import Conflict
from backend.jobs import endpoints, ids
from backend.jobs.models import Job, JobEvent, WebhookAttempt, WebhookDelivery

LEASE = timedelta(seconds=60)  # a delivery in hand is not begun again for this long
# A delivery in the broker counts as lost if nobody has taken it for so long; the first: of an empty queue
LOST_SOON, LOST_AFTER = timedelta(minutes=1), timedelta(minutes=5)
MOST_ATTEMPTS = 100  # at one delivery, those that were asked for included
MOST_CHARACTERS = 500  # of a reason
MOST_ASKED = timedelta(hours=1)  # how long a receiver may put off the next try

INTERRUPTED = "The worker was lost; nobody knows whether the receiver got it."


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"  # still to be made, perhaps after a failure
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # given up


@dataclass(frozen=True)
class Wanted:
    """Which deliveries are listed."""

    job_id: UUID | None = None
    endpoint_id: UUID | None = None
    status: DeliveryStatus | None = None


@dataclass(frozen=True)
class Claim:
    """A delivery in hand."""

    delivery: WebhookDelivery
    event: JobEvent
    attempt_id: UUID


@dataclass(frozen=True)
class Outcome:
    """How an attempt went."""

    status_code: int | None  # None: no answer came
    reason: str | None  # None: the receiver has it
    duration_ms: int


def status_of(delivery: WebhookDelivery) -> DeliveryStatus:
    """Where it stands."""
    if delivery.due_at is not None:
        return DeliveryStatus.PENDING
    return DeliveryStatus.DELIVERED if delivery.delivered_at is not None else DeliveryStatus.FAILED


def record(session: Session, job: Job, event: JobEvent) -> None:
    """Whoever is to be told of this event will be: the job's own webhook, and endpoints of its owner."""
    told: list[UUID | None] = []
    if job.webhook and event.type in job.webhook["events"]:
        told.append(None)
    told += endpoints.listening(session, job, event.type)
    for endpoint_id in told:
        job.to_tell = True
        session.add(
            WebhookDelivery(
                id=ids.new_id(), owner=job.owner, job_id=job.id, seq=event.seq, endpoint_id=endpoint_id,
                attempts=0, due_at=event.created_at, created_at=event.created_at,
            )
        )  # fmt: skip


# -- on their way -------------------------------------------------------------------------------------


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
) -> list[UUID]:
    """Deliveries whose time has come (of this job).

    They count as sent to the broker: until a worker has claimed them, or `lost_after`, nobody else gets them.
    """
    query = (
        sa.select(WebhookDelivery)
        .where(
            WebhookDelivery.due_at <= now,
            sa.or_(WebhookDelivery.sent_at.is_(None), WebhookDelivery.sent_at < now - lost_after),
        )
        .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if job_id is not None:
        query = query.where(WebhookDelivery.job_id == job_id)
    due = list(session.scalars(query))
    for delivery in due:
        delivery.sent_at = now
    return [delivery.id for delivery in due]


def claim(session: Session, delivery_id: UUID, now: datetime) -> Claim | None:
    """Takes a due delivery in hand: for LEASE nobody else does. None: it isn't due."""
    query = (
        sa.select(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.due_at <= now)
        .with_for_update()
    )
    delivery = session.scalar(query)
    if delivery is None:
        return None
    if delivery.attempts:
        _note_interrupted(session, delivery_id)
    delivery.attempts += 1
    delivery.due_at, delivery.sent_at = now + LEASE, None
    attempt = WebhookAttempt(id=ids.new_id(), delivery_id=delivery_id, started_at=now)
    session.add(attempt)
    event = session.get_one(JobEvent, (delivery.job_id, delivery.seq))
    return Claim(delivery, event, attempt.id)


def _note_interrupted(session: Session, delivery_id: UUID) -> None:
    """Who had it in hand before has not told how it went."""
    unfinished = sa.update(WebhookAttempt).where(
        WebhookAttempt.delivery_id == delivery_id,
        WebhookAttempt.duration_ms.is_(None),
        WebhookAttempt.reason.is_(None),
    )
    session.execute(unfinished.values(reason=INTERRUPTED).execution_options(synchronize_session=False))


def delivered(session: Session, attempt_id: UUID, outcome: Outcome, now: datetime) -> None:
    """The receiver has it."""
    if delivery := _note(session, attempt_id, outcome):
        delivery.due_at, delivery.delivered_at, delivery.last_error = None, now, None


def abandon(session: Session, attempt_id: UUID, outcome: Outcome) -> None:
    """It will not be tried again."""
    if delivery := _note(session, attempt_id, outcome):
        delivery.due_at = None


def postpone(
    session: Session,
    attempt_id: UUID,
    outcome: Outcome,
    now: datetime,
    retry_after_s: Sequence[float],
    jitter: float,
    asked_s: int | None = None,
) -> datetime | None:
    """It failed: when it is tried again, or None after the last attempt.

    `retry_after_s` are the waits after each attempt, to which up to a fifth is added; `jitter` is 0 to 1.
    `asked_s`: the receiver wants to be left alone for so long; that is heeded up to MOST_ASKED.
    """
    delivery = _note(session, attempt_id, outcome)
    if delivery is None:
        return None
    waits = retry_after_s[delivery.attempts - 1 : delivery.attempts]
    asked = min(timedelta(seconds=asked_s or 0), MOST_ASKED)
    delivery.due_at = now + max(timedelta(seconds=waits[0]), asked) * (1 + 0.2 * jitter) if waits else None
    return delivery.due_at


def _note(session: Session, attempt_id: UUID, outcome: Outcome) -> WebhookDelivery | None:
    """Completes the log. The delivery, locked; None: it went with its job."""
    query = (
        sa.select(WebhookDelivery, WebhookAttempt)
        .join(WebhookAttempt, WebhookAttempt.delivery_id == WebhookDelivery.id)
        .where(WebhookAttempt.id == attempt_id)
        .with_for_update(of=WebhookDelivery)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return None
    delivery, attempt = found
    attempt.status_code, attempt.duration_ms = outcome.status_code, outcome.duration_ms
    attempt.reason = outcome.reason and outcome.reason[:MOST_CHARACTERS]
    delivery.last_error = attempt.reason
    return delivery


def give_up_all(session: Session, endpoint_id: UUID, reason: str) -> None:
    """Nothing that this endpoint was still to be told is tried any more. Its row must be locked."""
    due = sa.update(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.due_at.is_not(None)
    )
    session.execute(due.values(due_at=None, last_error=reason).execution_options(synchronize_session=False))


# -- the log ------------------------------------------------------------------------------------------


def page(
    session: Session, owner: str, wanted: Wanted, limit: int, *, before: UUID | None, after: UUID | None
) -> list[WebhookDelivery]:
    """At most `limit` of the owner, newest first: those older than `before`, or just newer than `after`."""
    query = _of_owner(owner).options(joinedload(WebhookDelivery.event, innerjoin=True)).limit(limit)
    if wanted.job_id:
        query = query.where(WebhookDelivery.job_id == wanted.job_id)
    if wanted.endpoint_id:
        query = query.where(WebhookDelivery.endpoint_id == wanted.endpoint_id)
    if wanted.status:
        query = query.where(*_has(wanted.status))
    if after:
        newer = query.where(WebhookDelivery.id > after).order_by(WebhookDelivery.id.asc())
        return list(session.scalars(newer))[::-1]
    if before:
        query = query.where(WebhookDelivery.id < before)
    return list(session.scalars(query.order_by(WebhookDelivery.id.desc())))


def _of_owner(owner: str) -> sa.Select[WebhookDelivery]:
    """Those of jobs that are still there."""
    return (
        sa.select(WebhookDelivery)
        .join(Job, Job.id == WebhookDelivery.job_id)
        .where(WebhookDelivery.owner == owner, Job.deleted_at.is_(None))
    )


def _has(status: DeliveryStatus) -> list[sa.ColumnElement[bool]]:
    due: InstrumentedAttribute[datetime | None] = WebhookDelivery.due_at
    if status is DeliveryStatus.PENDING:
        return [due.is_not(None)]
    done = WebhookDelivery.delivered_at
    return [due.is_(None), done.is_not(None) if status is DeliveryStatus.DELIVERED else done.is_(None)]


def get(session: Session, delivery_id: UUID, owner: str) -> WebhookDelivery | None:
    """The owner's delivery, with its event and its log."""
    query = _of_owner(owner).where(WebhookDelivery.id == delivery_id)
    return session.scalar(
        query.options(joinedload(WebhookDelivery.event, innerjoin=True), selectinload(WebhookDelivery.log))
    )


def lock(session: Session, delivery_id: UUID, owner: str) -> WebhookDelivery | None:
    """The owner's delivery, locked until the session ends."""
    query = _of_owner(owner).where(WebhookDelivery.id == delivery_id)
    return session.scalar(query.with_for_update(of=WebhookDelivery))


def redeliver(session: Session, delivery: WebhookDelivery, now: datetime) -> None:
    """Makes a locked delivery due, with all its attempts before it. Raises `Conflict` if somebody has it in
    hand, or has tried it too often.
    """
    attempts = session.execute(
        sa.select(
            sa.func.count(),
            sa.func.count().filter(
                WebhookAttempt.duration_ms.is_(None), WebhookAttempt.started_at > now - LEASE
            ),
        ).where(WebhookAttempt.delivery_id == delivery.id)
    ).one()
    if attempts[1]:
        raise Conflict("It is being delivered right now.")
    if attempts[0] >= MOST_ATTEMPTS:
        raise Conflict(f"It was tried {attempts[0]} times: that is enough.")
    _note_interrupted(session, delivery.id)
    delivery.attempts, delivery.due_at, delivery.sent_at = 0, now, None
    delivery.delivered_at = delivery.last_error = None

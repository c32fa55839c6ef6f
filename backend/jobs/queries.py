"""Every question that is asked about jobs without changing them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import psycopg.errors
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, selectinload

from backend.jobs import ids, items
from backend.jobs.models import ENDED, OPEN, IdempotencyKey, ImageGeneration, Job, Status, WebhookDelivery


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are listed."""

    status: Status | None = None
    pipelines: Collection[str] | None = None  # None: all
    created_after: datetime | None = None
    created_before: datetime | None = None


# Built once: that takes longer than to ask them.
_JOB = (
    sa.select(Job)
    .where(Job.id == sa.bindparam("job_id"), Job.deleted_at.is_(None))
    .options(selectinload(Job.images))
)
_OWNED_JOB = _JOB.where(Job.owner == sa.bindparam("owner"))


def get(session: Session, job_id: UUID, owner: str | None = None) -> Job | None:
    """The job with its images; None if there is none, or it is somebody else's."""
    if owner is None:
        job = session.scalar(_JOB, {"job_id": job_id})
    else:
        job = session.scalar(_OWNED_JOB, {"job_id": job_id, "owner": owner})
    if job is not None:
        items.load(session, [job])
    return job


@dataclass(frozen=True)
class Version:
    """What tells two states of a job that has ended apart: whatever changes it changes one of these."""

    status: Status
    last_event: int
    updated_at: datetime
    expires_at: datetime | None


_VERSION = sa.select(Job.status, Job.last_event, Job.updated_at, Job.expires_at).where(
    Job.id == sa.bindparam("job_id"), Job.owner == sa.bindparam("owner"), Job.deleted_at.is_(None)
)


def version(session: Session, job_id: UUID, owner: str) -> Version | None:
    """Of the owner's job; None if there is none. Without its images: cheaper than `get` by far."""
    row = session.execute(_VERSION, {"job_id": job_id, "owner": owner}).one_or_none()
    return None if row is None else Version(*row)


def version_of(job: Job) -> Version:
    """Of a job that was read."""
    return Version(job.status, job.last_event, job.updated_at, job.expires_at)


def completed_image(session: Session, image_id: UUID, owner: str) -> ImageGeneration | None:
    """An image that is made, of a job that is still there; None also where it is somebody else's."""
    query = (
        sa.select(ImageGeneration)
        .join(Job, Job.id == ImageGeneration.job_id)
        .where(
            ImageGeneration.id == image_id,
            ImageGeneration.status == Status.COMPLETED,
            Job.owner == owner,
            Job.deleted_at.is_(None),
        )
    )
    return session.scalar(query)


def page(
    session: Session, owner: str, wanted: JobFilter, limit: int, *, before: UUID | None, after: UUID | None
) -> list[Job]:
    """At most `limit` jobs, newest first: those older than `before`, or the ones just newer than `after`."""
    query = sa.select(Job).where(Job.owner == owner, Job.deleted_at.is_(None))
    if wanted.status:
        query = query.where(Job.status == wanted.status)
    if wanted.pipelines is not None:
        query = query.where(Job.pipeline.in_(wanted.pipelines))
    if wanted.created_after:
        query = query.where(Job.created_at > wanted.created_after)
    if wanted.created_before:
        query = query.where(Job.created_at < wanted.created_before)
    if after:
        newer = query.where(Job.id > after).order_by(Job.id.asc()).limit(limit)
        jobs = list(session.scalars(newer.options(selectinload(Job.images))))[::-1]
        items.load(session, jobs)
        return jobs
    if before:
        query = query.where(Job.id < before)
    query = query.order_by(Job.id.desc()).limit(limit).options(selectinload(Job.images))
    jobs = list(session.scalars(query))
    items.load(session, jobs)
    return jobs


def idempotency_key(session: Session, owner: str, key: str) -> IdempotencyKey | None:
    """What is known under this key of this owner."""
    return session.get(IdempotencyKey, (owner, key))


def wait_for_locks(session: Session, milliseconds: int) -> None:
    """How long this session waits for what others have locked. SQLite has one wait for all."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text(f"SET LOCAL lock_timeout = {milliseconds}"))


def is_lock_timeout(exc: BaseException | None) -> bool:
    """Whether a session has waited in vain for a lock."""
    return isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.errors.LockNotAvailable)


@dataclass(frozen=True)
class Demand:
    """What is asked of the nodes of one model."""

    waiting: int = 0  # images that no node has begun
    running: int = 0  # images that a node has in hand
    waiting_since: datetime | None = None  # the oldest of those that wait

    def oldest_wait_s(self, now: datetime) -> float:
        """How long the oldest has waited, in seconds; 0 if none waits."""
        return max((now - self.waiting_since).total_seconds(), 0.0) if self.waiting_since else 0.0


def demand(session: Session, models: Collection[str]) -> dict[str, Demand]:
    """What is asked of each of these models; those of which nothing is are left out.

    Models are named because the index begins with them: what was made long ago is never looked at.
    """
    begun_anew = sa.select(Job.dispatched_at).where(Job.id == ImageGeneration.job_id).scalar_subquery()
    since = sa.case((ImageGeneration.run == 1, ImageGeneration.created_at), else_=begun_anew)
    query = (
        sa.select(ImageGeneration.model, ImageGeneration.status, sa.func.count(), sa.func.min(since))
        .where(
            ImageGeneration.model.in_(models),
            ImageGeneration.status.in_(OPEN),
            ImageGeneration.generated_at.is_(None),
            ImageGeneration.job_id.not_in(sa.select(Job.id).where(Job.held_at.is_not(None))),
        )
        .group_by(ImageGeneration.model, ImageGeneration.status)
    )
    found: dict[str, Demand] = {}
    for model, status, count, oldest in session.execute(query):
        known = found.get(model, Demand())
        if status is Status.PENDING:
            found[model] = replace(known, waiting=count, waiting_since=oldest)
        else:
            found[model] = replace(known, running=count)
    return found


def open_jobs(session: Session) -> dict[str, int]:
    """How many jobs have not ended, by status."""
    query = (
        sa.select(Job.status, sa.func.count())
        .where(Job.status.in_(OPEN), Job.deleted_at.is_(None))
        .group_by(Job.status)
    )
    return _counted(session, query, OPEN)


def ended_jobs(session: Session, after: datetime) -> dict[str, int]:
    """How many jobs have ended since then, by status."""
    query = (
        sa.select(Job.status, sa.func.count())
        .where(Job.status.in_(ENDED), Job.updated_at > after, Job.completed_at > after)
        .group_by(Job.status)
    )
    return _counted(session, query, sorted(ENDED))


def _counted(session: Session, query: sa.Select[Status, int], statuses: Iterable[Status]) -> dict[str, int]:
    """The counts by status, also where there is none."""
    found = {status.value: count for status, count in session.execute(query)}
    return {status.value: found.get(status.value, 0) for status in statuses}


def webhooks_due(session: Session, now: datetime) -> int:
    """How many deliveries should have been tried by now."""
    query = sa.select(sa.func.count()).select_from(WebhookDelivery).where(WebhookDelivery.due_at <= now)
    return session.scalar(query) or 0


# -- what the sweep looks for -------------------------------------------------------------------------


def undispatched(session: Session, older_than: datetime, limit: int = 500) -> list[UUID]:
    """Jobs that were accepted and that the broker never got."""
    query = (
        sa.select(Job.id)
        .where(
            Job.status == Status.PENDING,
            Job.dispatched_at.is_(None),
            Job.updated_at < older_than,
            Job.deleted_at.is_(None),
        )
        .order_by(Job.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def silent(session: Session, older_than: datetime, limit: int = 500) -> list[UUID]:
    """Open jobs that the broker got and of which nothing was heard since, but for those that wait for images
    which nodes were given.
    """
    unmade = sa.exists().where(
        ImageGeneration.job_id == Job.id,
        ImageGeneration.status.in_(OPEN),
        ImageGeneration.generated_at.is_(None),
    )
    query = (
        sa.select(Job.id)
        .where(
            Job.status.in_(OPEN),
            Job.dispatched_at < older_than,
            Job.updated_at < older_than,
            Job.deleted_at.is_(None),
            Job.held_at.is_(None),
            sa.or_(
                ~unmade.where(ImageGeneration.queued_at.is_not(None)),
                unmade.where(ImageGeneration.queued_at.is_(None)),
            ),
        )
        .order_by(Job.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def to_cancel(session: Session, now: datetime, limit: int = 500) -> list[UUID]:
    """Open jobs whose clients did not want to wait for longer than until now."""
    query = (
        sa.select(Job.id)
        .where(Job.status.in_(OPEN), Job.cancel_at < now, Job.deleted_at.is_(None))
        .limit(limit)
    )
    return list(session.scalars(query))


def overdue(session: Session, now: datetime, limit: int = 500) -> list[UUID]:
    """Open jobs whose deadline has passed."""
    query = (
        sa.select(Job.id)
        .where(Job.status.in_(OPEN), Job.deadline_at < now, Job.deleted_at.is_(None))
        .limit(limit)
    )
    return list(session.scalars(query))


def to_erase(session: Session, now: datetime, limit: int = 100) -> list[Job]:
    """Jobs that were deleted, or never accepted, and whose objects may still be there; the longest first."""
    query = sa.select(Job).where(Job.deleted_at <= now).order_by(Job.deleted_at).limit(limit)
    return list(session.scalars(query.options(selectinload(Job.images))))


def drop_old_idempotency_keys(session: Session, now: datetime, ttl: timedelta) -> None:
    """Forgets the keys that were used longer ago than `ttl`."""
    session.execute(sa.delete(IdempotencyKey).where(IdempotencyKey.created_at < now - ttl))


# -- what has had its time ----------------------------------------------------------------------------


def dated(session: Session, limit: int = 500) -> list[UUID]:
    """Jobs that are to expire."""
    query = sa.select(Job.id).where(Job.expires_at.is_not(None), Job.deleted_at.is_(None)).limit(limit)
    return list(session.scalars(query))


def undated(session: Session, limit: int = 500) -> list[UUID]:
    """Jobs that have ended and are not to expire."""
    query = (
        sa.select(Job.id)
        .where(Job.expires_at.is_(None), Job.status.in_(ENDED), Job.deleted_at.is_(None))
        .limit(limit)
    )
    return list(session.scalars(query))


def expired(session: Session, now: datetime, limit: int = 100) -> list[UUID]:
    """Jobs whose time has come, the longest first; not those of which somebody is still to be told or to
    get an image.
    """
    if not session.scalar(sa.select(sa.exists().where(Job.expires_at <= now, Job.deleted_at.is_(None)))):
        return []  # as nearly always: the rest costs more
    query = (
        sa.select(Job.id)
        .where(Job.expires_at <= now, *_can_expire(session))
        .order_by(Job.expires_at)
        .limit(limit)
    )
    return list(session.scalars(query))


def doomed(
    session: Session, now: datetime, kept_for: timedelta | None, after: UUID | None, limit: int = 100
) -> list[Job]:
    """By id, after `after`: jobs that are deleted, expired, or would be if all had been kept for so long."""
    time_is_over = (
        sa.or_(Job.expires_at <= now, sa.and_(Job.expires_at.is_(None), Job.completed_at <= now - kept_for))
        if kept_for
        else sa.false()
    )
    query = (
        sa.select(Job)
        .where(sa.or_(Job.deleted_at <= now, sa.and_(time_is_over, *_can_expire(session))))
        .order_by(Job.id)
        .limit(limit)
        .options(selectinload(Job.images))
    )
    return list(session.scalars(query.where(Job.id > after) if after else query))


def _can_expire(session: Session) -> list[sa.ColumnElement[bool]]:
    to_be_told = sa.exists().where(WebhookDelivery.job_id == Job.id, WebhookDelivery.due_at.is_not(None))
    wanted = sa.select(ImageGeneration.job_id).where(ImageGeneration.id.in_(_started_from(session)))
    return [Job.deleted_at.is_(None), Job.status.in_(ENDED), ~to_be_told, Job.id.not_in(wanted)]


def _started_from(session: Session) -> list[UUID]:
    """Images that jobs start from which have not ended: they may not have been fetched yet."""
    found: list[UUID] = []
    for role in ids.ROLES:
        image_id = Job.input[role]["image_id"].as_string()
        query = sa.select(image_id).where(Job.status.in_(OPEN), image_id.is_not(None))
        found += [UUID(one) for one in session.scalars(query)]
    return found


def existing(session: Session, job_ids: list[UUID]) -> set[UUID]:
    """Those that have a row, in whatever state: deleted and not erased, or reserved and not accepted, too."""
    return set(session.scalars(sa.select(Job.id).where(Job.id.in_(job_ids))))

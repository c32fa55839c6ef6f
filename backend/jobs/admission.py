"""What is let in: how many images may be open at once, of one owner and of all together; and how many of one
owner nodes may be given at once.

An image counts as open until its job has ended: so it costs one look at the open jobs, and no more.
"""

import hashlib
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.errors import QueueFull, QuotaReached
from backend.jobs.fairness import place_of
from backend.jobs.models import OPEN, ImageGeneration, Job, Status

AT_ONCE = 64  # requests of one size that may be accepted at the same moment without passing a limit together

_EVERYBODY = "\n"  # no owner is called that


_OPEN_IMAGES = sa.select(  # built once: that takes longer than to ask it
    sa.func.sum(sa.case((Job.owner == sa.bindparam("owner"), Job.total), else_=0)), sa.func.sum(Job.total)
).where(Job.status.in_(OPEN), Job.deleted_at.is_(None))


@dataclass(frozen=True)
class Limits:
    """In images; 0: none."""

    per_owner: int = 0
    in_all: int = 0


def admit(session: Session, owner: str, images: int, limits: Limits) -> None:
    """Raises `QuotaReached` or `QueueFull` where so many images more are too many.

    To be asked in the transaction that accepts them: near a limit, whoever asks waits for those that are
    being accepted. Postgres alone has several at once.
    """
    of_owner, of_all = _open_images(session, owner)
    near = [
        whose
        for whose, limit, count in ((owner, limits.per_owner, of_owner), (_EVERYBODY, limits.in_all, of_all))
        if limit and limit - count < images * AT_ONCE
    ]
    if near:
        for whose in near:
            wait_for_others(session, whose)
        of_owner, of_all = _open_images(session, owner)
    if limits.per_owner and of_owner + images > limits.per_owner:
        raise QuotaReached(f"You have too many images open: at most {limits.per_owner} may be.")
    if limits.in_all and of_all + images > limits.in_all:
        raise QueueFull


def may_run(session: Session, owner: str, limit: int) -> int:
    """How many images more of the owner nodes may be given, where he may have so many with them at once.

    To be asked in the transaction that gives them: others who ask for the same owner wait for its end.
    """
    wait_for_others(session, owner)
    given = (
        sa.select(sa.func.count())
        .select_from(ImageGeneration)
        .join(Job)
        .where(Job.owner == owner, Job.status.in_(OPEN), Job.deleted_at.is_(None))
        .where(ImageGeneration.status.in_(OPEN), ImageGeneration.generated_at.is_(None))
        .where(ImageGeneration.queued_at.is_not(None))
    )
    return max(limit - (session.scalar(given) or 0), 0)


def held_back(session: Session, owner: str, limit: int = 20) -> list[UUID]:
    """Open jobs of the owner with images that nodes were not given yet; whose turn it is, comes first."""
    unsent = sa.exists().where(
        ImageGeneration.job_id == Job.id,
        ImageGeneration.status == Status.PENDING,
        ImageGeneration.queued_at.is_(None),
    )
    query = sa.select(Job.id, Job.input["priority"].as_string()).where(
        Job.owner == owner, Job.status.in_(OPEN), Job.deleted_at.is_(None), Job.held_at.is_(None), unsent
    )
    found = sorted((place_of(priority), job_id) for job_id, priority in session.execute(query))
    return [job_id for _, job_id in found[:limit]]


def wait_for_others(session: Session, whose: str) -> None:
    """Until this transaction ends, whoever else asks for the same waits. On SQLite writers wait anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_number(whose))))


def _open_images(session: Session, owner: str) -> tuple[int, int]:
    """Of the owner, and of all together."""
    own, everybody = session.execute(_OPEN_IMAGES, {"owner": owner}).one()
    return int(own or 0), int(everybody or 0)


def _lock_number(whose: str) -> int:
    digest = hashlib.blake2b(whose.encode(), digest_size=8, person=b"admission").digest()
    return int.from_bytes(digest, signed=True)

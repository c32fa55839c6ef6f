"""What is let in: how many images may be open at once, of one owner and of all together.

An image counts as open until its job has ended: so it costs one look at the open jobs, and no more.
"""

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.errors import QueueFull, QuotaReached
from backend.jobs.models import OPEN, Job

AT_ONCE = 64  # requests of one size that may be accepted at the same moment without passing a limit together

_EVERYBODY = "\n"  # no owner is called that


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
    if limits.per_owner and _left(session, owner, images, limits.per_owner) < images:
        raise QuotaReached(f"You have too many images open: at most {limits.per_owner} may be.")
    if limits.in_all and _left(session, _EVERYBODY, images, limits.in_all) < images:
        raise QueueFull


def _left(session: Session, whose: str, images: int, limit: int) -> int:
    left = limit - _open_images(session, whose)
    if left < images * AT_ONCE and session.get_bind().dialect.name == "postgresql":
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_number(whose))))
        left = limit - _open_images(session, whose)
    return left


def _open_images(session: Session, whose: str) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(Job.total), 0)).where(
        Job.status.in_(OPEN), Job.deleted_at.is_(None)
    )
    if whose != _EVERYBODY:
        query = query.where(Job.owner == whose)
    return int(session.scalar(query) or 0)


def _lock_number(whose: str) -> int:
    digest = hashlib.blake2b(whose.encode(), digest_size=8, person=b"admission").digest()
    return int.from_bytes(digest, signed=True)

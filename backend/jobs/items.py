"""Files from outside that a job makes images of: which are next, how each went, and what is left.

    pending -> in_progress -> completed | failed | canceled
    in_progress -> pending (what it needs is away; or the worker that had it in hand is gone)
    failed -> pending (retry)

There may be thousands in one job, so they are counted and changed by SQL, and never all read. Each change
happens under the lock of the job's row.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.jobs import events, ids
from backend.jobs.faults import Fault
from backend.jobs.models import ENDED, OPEN, Job, MediaItem, Status

SHOWN = 100  # items that are part of their job's view; the others are asked for in pages
AT_ONCE = 1000  # rows of one statement
ATTEMPTS = 4  # at what is away, before the item fails
LOSSES = 3  # after so many workers that died over it, it is to blame

REFUSED = ("file_empty", "file_too_large")  # files that were never stored

LOST = Fault("worker_lost", "The workers that had it in hand were lost each time.", retryable=True)


@dataclass(frozen=True)
class Source:
    """Where an item's file comes from."""

    filename: str | None = None  # of an upload; its bytes are stored, or will be
    url: str | None = None
    product_id: UUID | None = None
    fault: Fault | None = None  # why it is refused already


@dataclass(frozen=True)
class Made:
    """What was made of an item, and stored."""

    key: str
    content_type: str
    bytes: int
    given_bytes: int
    sha256: str
    width: int
    height: int
    thumbnails: list[dict[str, Any]] = field(default_factory=list)  # as of images, small to large

    def all_keys(self) -> list[str]:
        """All that is stored."""
        return [self.key, *(one["key"] for one in self.thumbnails)]


@dataclass(frozen=True)
class Away:
    """What an item needs is away for now."""

    fault: Fault  # what it fails with if that lasts
    wait: timedelta
    counts: bool = True  # False: it is our own doing, and no attempt is counted


Outcome = Made | Fault | Away

_FRESH = {"populate_existing": True}  # they are changed by SQL


# -- reading ------------------------------------------------------------------------------------------


def load(session: Session, jobs: Iterable[Job]) -> None:
    """Gives jobs that take files their first items, and the count of all: for those who show them."""
    with_files = {job.id: job for job in jobs if job.takes_files}
    if not with_files:
        return
    first: dict[UUID, list[MediaItem]] = defaultdict(list)
    query = sa.select(MediaItem).where(MediaItem.job_id.in_(with_files), MediaItem.index < SHOWN)
    for item in session.scalars(query.order_by(MediaItem.index), execution_options=_FRESH):
        first[item.job_id].append(item)
    of_each = _counts(session, with_files)
    for job_id, job in with_files.items():
        job.first_items, job.item_counts = first[job_id], of_each[job_id]


def counts(session: Session, job_id: UUID) -> dict[Status, int]:
    """How many there are in each state."""
    return _counts(session, [job_id])[job_id]


def _counts(session: Session, job_ids: Iterable[UUID]) -> Mapping[UUID, dict[Status, int]]:
    found: dict[UUID, dict[Status, int]] = defaultdict(dict)
    query = sa.select(MediaItem.job_id, MediaItem.status, sa.func.count())
    query = query.where(MediaItem.job_id.in_(job_ids)).group_by(MediaItem.job_id, MediaItem.status)
    for job_id, status, count in session.execute(query):
        found[job_id][status] = count
    return found


def any_open(session: Session, job_id: UUID) -> bool:
    """Whether one is left that has not ended. Takes no longer where there are thousands."""
    found = sa.exists().where(MediaItem.job_id == job_id, MediaItem.status.in_(OPEN))
    return bool(session.scalar(sa.select(found)))


def page(
    session: Session, job_id: UUID, limit: int, *, status: Status | None = None, after: int | None = None
) -> list[MediaItem]:
    """At most `limit` items in their order, those after index `after`."""
    query = sa.select(MediaItem).where(MediaItem.job_id == job_id)
    if status:
        query = query.where(MediaItem.status == status)
    if after is not None:
        query = query.where(MediaItem.index > after)
    return list(session.scalars(query.order_by(MediaItem.index).limit(limit)))


def by_index(session: Session, job_id: UUID, indexes: Iterable[int]) -> dict[int, MediaItem]:
    """Those of the job that are there."""
    query = sa.select(MediaItem).where(MediaItem.job_id == job_id, MediaItem.index.in_(list(indexes)))
    return {item.index: item for item in session.scalars(query)}


def is_made_elsewhere(session: Session, item: MediaItem) -> bool:
    """Whether another job has the same image of the same product in hand: what it stores may have the name of
    what was made before.
    """
    query = (
        sa.select(MediaItem.id)
        .join(Job, Job.id == MediaItem.job_id)
        .where(
            Job.status.in_(OPEN),
            MediaItem.status == Status.IN_PROGRESS,
            MediaItem.job_id != item.job_id,
            MediaItem.product_id == item.product_id,
            MediaItem.source_url == item.source_url,
        )
    )
    return session.scalar(query.limit(1)) is not None


# -- changing -----------------------------------------------------------------------------------------


def plan(session: Session, job: Job, sources: Sequence[Source], now: datetime) -> None:
    """The rows of a new job's items. What is refused already has failed."""
    session.flush()
    rows = [_row(job, index, source, now) for index, source in enumerate(sources)]
    for start in range(0, len(rows), AT_ONCE):
        session.execute(sa.insert(MediaItem), rows[start : start + AT_ONCE])
    load(session, [job])


def _row(job: Job, index: int, source: Source, now: datetime) -> dict[str, Any]:
    fault = source.fault
    return {
        "id": ids.item_id(job.id, index), "job_id": job.id, "index": index,
        "status": Status.FAILED if fault else Status.PENDING,
        "filename": source.filename, "source_url": source.url, "product_id": source.product_id,
        "attempts": 0, "losses": 0, "thumbnails": [],
        "created_at": now, "completed_at": now if fault else None,
        "error_code": fault.code if fault else None, "error_message": fault.message if fault else None,
        "error_retryable": fault.retryable if fault else None,
    }  # fmt: skip


def take_interrupted(session: Session, job: Job, now: datetime) -> MediaItem | None:
    """The next that somebody had in hand who is gone, taken in hand anew; for whoever has claimed the job.

    What was lost LOSSES times fails: it may be what kills the workers. So no other should be in hand with it.
    """
    query = sa.select(MediaItem).where(MediaItem.job_id == job.id, MediaItem.status == Status.IN_PROGRESS)
    for item in session.scalars(query.order_by(MediaItem.index)):
        item.losses += 1
        if item.losses < LOSSES:
            return item
        end(session, job, item, LOST, now)
    return None


def due(
    session: Session, job_id: UUID, now: datetime, limit: int, *, passed_over: Collection[str] = ()
) -> list[MediaItem]:
    """Items that may be begun, in their order; none whose URL begins as one that is passed over."""
    query = (
        sa.select(MediaItem)
        .where(
            MediaItem.job_id == job_id,
            MediaItem.status == Status.PENDING,
            sa.or_(MediaItem.due_at.is_(None), MediaItem.due_at <= now),
            *(~MediaItem.source_url.startswith(begin, autoescape=True) for begin in passed_over),
        )
        .order_by(MediaItem.index)
        .limit(limit)
    )
    return list(session.scalars(query))


def next_due(session: Session, job_id: UUID) -> datetime | None:
    """When the next of those is due that wait; None: one is due now, or none waits."""
    waits = sa.select(sa.func.count(), sa.func.count(MediaItem.due_at), sa.func.min(MediaItem.due_at)).where(
        MediaItem.job_id == job_id, MediaItem.status == Status.PENDING
    )
    waiting, dated, first = session.execute(waits).one()
    return first if waiting and waiting == dated else None


def begin(item: MediaItem, now: datetime) -> None:
    """It is taken in hand."""
    item.status, item.attempts = Status.IN_PROGRESS, item.attempts + 1
    item.started_at = item.started_at or now


def end(session: Session, job: Job, item: MediaItem, outcome: Outcome, now: datetime) -> None:
    """How an item of a locked job went, which was in hand. What is away comes again, up to ATTEMPTS times."""
    if isinstance(outcome, Away):
        if not outcome.counts:
            item.attempts -= 1
        if item.attempts < ATTEMPTS:
            item.status, item.due_at = Status.PENDING, now + outcome.wait
            return
        outcome = outcome.fault
    item.completed_at, item.due_at = now, None
    if isinstance(outcome, Fault):
        item.status, item.error_code = Status.FAILED, outcome.code
        item.error_message, item.error_retryable = outcome.message, outcome.retryable
    else:
        _keep(item, outcome)
    error = outcome.as_dict() if isinstance(outcome, Fault) else None
    data = {"index": item.index, "status": item.status.value, "error": error}
    events.record(session, job, f"item.{item.status.value}", data, now)


def _keep(item: MediaItem, made: Made) -> None:
    item.status = Status.COMPLETED
    item.key, item.content_type, item.sha256 = made.key, made.content_type, made.sha256
    item.bytes, item.given_bytes = made.bytes, made.given_bytes
    item.width, item.height, item.thumbnails = made.width, made.height, made.thumbnails
    item.error_code = item.error_message = item.error_retryable = None


def end_open(session: Session, job: Job, status: Status, fault: Fault | None, now: datetime) -> None:
    """What is left of a locked job ends with it: by the job's own event, as there may be thousands."""
    values: dict[str, Any] = {"status": status, "completed_at": now, "due_at": None}
    if fault:
        values |= {
            "error_code": fault.code, "error_message": fault.message, "error_retryable": fault.retryable,
        }  # fmt: skip
    _change(session, job, MediaItem.status.in_(OPEN), values)


def reset_failed(session: Session, job: Job) -> None:
    """What failed of a locked job is pending again; not what was refused when it came: there is no file."""
    values = {
        "status": Status.PENDING, "attempts": 0, "losses": 0, "due_at": None,
        "started_at": None, "completed_at": None,
        "error_code": None, "error_message": None, "error_retryable": None,
    }  # fmt: skip
    was_refused = sa.and_(MediaItem.error_code.in_(REFUSED), MediaItem.started_at.is_(None))
    _change(session, job, sa.and_(MediaItem.status == Status.FAILED, ~was_refused), values)


def _change(session: Session, job: Job, which: sa.ColumnElement[bool], values: Mapping[str, Any]) -> None:
    session.flush()
    session.execute(
        sa.update(MediaItem).where(MediaItem.job_id == job.id, which).values(values),
        execution_options={"synchronize_session": False},
    )


def status_of_all(found: Mapping[Status, int]) -> Status:
    """What the job has come to, by the counts of its items, which have all ended."""
    kept, others = found.get(Status.COMPLETED, 0), sum(found.get(status, 0) for status in ENDED)
    if kept == others and kept:
        return Status.COMPLETED
    return Status.PARTIALLY_COMPLETED if kept else Status.FAILED


def fault_of_all(session: Session, job_id: UUID) -> Fault:
    """One fault for a job of which nothing was made: that of all, if they agree."""
    retryable = sa.func.max(sa.case((MediaItem.error_retryable.is_(True), 1), else_=0))
    query = (
        sa.select(MediaItem.error_code, sa.func.min(MediaItem.error_message), retryable)
        .where(MediaItem.job_id == job_id)
        .group_by(MediaItem.error_code)
    )
    found = session.execute(query).all()
    if len(found) == 1 and found[0][0]:
        code, message, worth_it = found[0]
        return Fault(code, message or "", bool(worth_it))
    worth_it = any(one[2] for one in found)
    return Fault("all_items_failed", "Nothing could be made of any of the files; each says why.", worth_it)

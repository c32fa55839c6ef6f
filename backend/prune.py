"""Deletes what nobody needs any more: jobs whose time has come, and objects that no job knows of.

A job's row is there before its first object and goes after the last one it knows of, and ids never come back.
So an object without a row belongs to nobody, now and for ever: somebody was late, or died on the way. Only
one mistake is left, to ask the wrong database; that is why there must be a job that both sides know.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Literal
from uuid import UUID

from backend import resources, retention
from backend.celery_app import app
from backend.db import Database
from backend.errors import FanfareError
from backend.jobs import ids, queries
from backend.jobs.models import Job
from backend.storage.base import ListedObject, Storage
from backend.storage.keys import CHECKS
from backend.views import now
from contract.queues import PRUNE

log = logging.getLogger(__name__)

SAFE_AGE = timedelta(hours=24)
AT_ONCE = 200  # jobs that the database is asked for in one question

Kind = Literal["expired", "deleted", "orphaned", "unfinished"]


class StrangeStorage(FanfareError):
    """The database knows none of the jobs whose objects are in this storage. Is it the right one?"""

    code = "strange_storage"


@dataclass(frozen=True)
class Find:
    """Something that goes, or would."""

    kind: Kind
    name: str  # a job's id, or a word for what is no job's
    objects: int
    bytes: int
    keys: tuple[str, ...] = ()


@app.task(name=PRUNE, soft_time_limit=1500, time_limit=1560)
def prune_regularly() -> None:
    """One round, at the time of day that is set. Two at once do no harm."""
    parts = resources.current()
    kept_for = parts.settings.job_ttl
    found = list(prune(parts.db, parts.storage, kept_for=kept_for))
    objects, size = sum(one.objects for one in found), sum(one.bytes for one in found)
    log.info("pruned: %s finds with %s objects, %s bytes", len(found), objects, size)


def prune(
    db: Database,
    storage: Storage,
    *,
    kept_for: timedelta | None,
    older_than: timedelta = SAFE_AGE,
    dry_run: bool = False,
    force: bool = False,
) -> Iterator[Find]:
    """Deletes as it is read, and tells what. Raises `StrangeStorage` before it deletes what no job knows of,
    unless it is forced; `StorageUnavailable` and `DatabaseUnavailable` when something is away.
    """
    yield from _doomed_jobs(db, kept_for) if dry_run else _erase_jobs(db, storage, kept_for)
    yield from _orphans(db, storage, now() - older_than, dry_run=dry_run, force=force)
    yield from _leftovers(storage, now() - older_than, dry_run=dry_run)
    unfinished = storage.forget_unfinished(dry_run=dry_run)
    if unfinished.count:
        yield Find("unfinished", "drafts", unfinished.count, unfinished.bytes)


# -- jobs whose time has come -------------------------------------------------------------------------


def _doomed_jobs(db: Database, kept_for: timedelta | None) -> Iterator[Find]:
    """Those that have expired, also those that would by a setting that is new; and those deleted already."""
    moment, after = now(), None
    while True:
        with db.read_scope() as session:
            jobs = queries.doomed(session, moment, kept_for, after)
        if not jobs:
            return
        yield from map(_find_of, jobs)
        after = jobs[-1].id


def _erase_jobs(db: Database, storage: Storage, kept_for: timedelta | None) -> Iterator[Find]:
    retention.keep_dates(db, kept_for)
    while True:
        expired = retention.expire(db, kept_for)
        erased = retention.erase_deleted(db, storage)
        yield from map(_find_of, erased)
        if not expired and not erased:
            return


def _find_of(job: Job) -> Find:
    """By what its rows know of; there may be more."""
    made = [image for image in job.images if image.key]
    thumbnails = [one for image in made for one in image.thumbnails]
    size = sum(image.bytes or 0 for image in made) + sum(one["bytes"] for one in thumbnails)
    kind: Kind = "expired" if job.expires_at or not job.deleted_at else "deleted"
    return Find(kind, str(job.id), len(made) + len(thumbnails), size)


# -- objects that no job knows of ---------------------------------------------------------------------


def _orphans(
    db: Database, storage: Storage, until: datetime, *, dry_run: bool, force: bool
) -> Iterator[Find]:
    trusted = dry_run or force
    for find in _without_job(db, storage, until):
        if not trusted:
            _check_acquaintance(db, storage)
            trusted = True
        if not dry_run:
            storage.delete(find.keys)
        yield find


def _without_job(db: Database, storage: Storage, until: datetime) -> Iterator[Find]:
    """What was written before `until` of jobs that aren't there. Asked after the listing: see above."""
    for folders in _portions(storage):
        known = _known(db, folders)
        for job_id, objects in folders.items():
            if job_id not in known and max(one.modified for one in objects) <= until:
                keys = tuple(one.key for one in objects)
                yield Find("orphaned", str(job_id), len(keys), sum(one.bytes for one in objects), keys)


def _check_acquaintance(db: Database, storage: Storage) -> None:
    """Raises `StrangeStorage` if no job of the database has an object here."""
    if not any(_known(db, folders) for folders in _portions(storage)):
        raise StrangeStorage


def _portions(storage: Storage) -> Iterator[dict[UUID, list[ListedObject]]]:
    """The jobs' folders, some at a time. What is in no job's folder is somebody else's."""
    folders = (
        (job_id, list(objects))
        for job_id, objects in groupby(storage.walk(ids.JOBS), key=lambda one: ids.job_of(one.key))
        if job_id is not None
    )
    while portion := dict(islice(folders, AT_ONCE)):
        yield portion


def _known(db: Database, job_ids: Iterable[UUID]) -> set[UUID]:
    with db.read_scope() as session:
        return queries.existing(session, list(job_ids))


def _leftovers(storage: Storage, until: datetime, *, dry_run: bool) -> Iterator[Find]:
    """What health checks leave that die in their middle."""
    old = [one for one in storage.walk(CHECKS) if one.modified <= until]
    if old and not dry_run:
        storage.delete(one.key for one in old)
    if old:
        yield Find("unfinished", "checks", len(old), sum(one.bytes for one in old))

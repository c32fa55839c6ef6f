"""Deletes what nobody needs any more: jobs whose time has come, and objects that no job or product knows of.

A job's row is there before its first object and goes after the last one it knows of, and ids never come back.
So an object without a row belongs to nobody, now and for ever: somebody was late, or died on the way. Only
one mistake is left, to ask the wrong database; that is why there must be a job that both sides know. It is
the same with products; and what one of them has and its images don't name was replaced.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session

from backend import resources, retention
from backend.celery_app import app
from backend.db import Database
from backend.errors import FanfareError
from backend.jobs import ids, queries
from backend.jobs.models import Job
from backend.products import erasing
from backend.products import ids as product_ids
from backend.products import store as products
from backend.storage.base import ListedObject, Storage
from backend.storage.keys import CHECKS
from backend.views import now
from contract.queues import PRUNE

log = logging.getLogger(__name__)

SAFE_AGE = timedelta(hours=24)
AT_ONCE = 200  # jobs or products that the database is asked for in one question

Kind = Literal["expired", "deleted", "orphaned", "unfinished"]
Owner = Literal["job", "product"]  # of objects


class StrangeStorage(FanfareError):
    """The database knows no job or product whose objects are in this storage. Is it the right one?"""

    code = "strange_storage"


@dataclass(frozen=True)
class Find:
    """Something that goes, or would."""

    kind: Kind
    name: str  # a job's or a product's id, or a word for what is nobody's
    objects: int
    bytes: int
    keys: tuple[str, ...] = ()
    owner: Owner = "job"


@dataclass(frozen=True)
class _Folders:
    """Where the objects of one kind of owners are, and how to ask for them."""

    owner: Owner
    prefix: str
    owner_of: Callable[[str], UUID | None]  # by key
    existing: Callable[[Session, list[UUID]], set[UUID]]
    # Keys that they name; None: whatever lies in the folder of one that exists is its own.
    named: Callable[[Session, list[UUID]], set[str]] | None


_ALL_FOLDERS = (
    _Folders("job", ids.JOBS, ids.job_of, queries.existing, None),
    _Folders("product", product_ids.PRODUCTS, product_ids.product_of, products.existing, products.named_keys),
)


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
    """Deletes as it is read, and tells what. Raises `StrangeStorage` before it deletes what nobody knows of,
    unless it is forced; `StorageUnavailable` and `DatabaseUnavailable` when something is away.
    """
    yield from _doomed_jobs(db, kept_for) if dry_run else _erase_jobs(db, storage, kept_for)
    yield from _deleted_products(db, storage, dry_run=dry_run)
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


# -- products that are deleted ------------------------------------------------------------------------


def _deleted_products(db: Database, storage: Storage, *, dry_run: bool) -> Iterator[Find]:
    moment, after = now(), None
    while True:
        with db.read_scope() as session:
            deleted = products.deleted(session, moment, after)
        if not deleted:
            return
        for product_id in deleted:
            sizes = [one.bytes for one in storage.walk(product_ids.folder(product_id))]
            if not dry_run:
                erasing.erase(db, storage, product_id)
            yield Find("deleted", str(product_id), len(sizes), sum(sizes), owner="product")
        after = deleted[-1]


# -- objects that nobody knows of ---------------------------------------------------------------------


def _orphans(
    db: Database, storage: Storage, until: datetime, *, dry_run: bool, force: bool
) -> Iterator[Find]:
    trusted = dry_run or force
    for folders in _ALL_FOLDERS:
        for find in _without_owner(db, storage, folders, until):
            if not trusted:
                _check_acquaintance(db, storage)
                trusted = True
            if not dry_run:
                storage.delete(find.keys)
            yield find


def _without_owner(db: Database, storage: Storage, folders: _Folders, until: datetime) -> Iterator[Find]:
    """What was written before `until` and is nobody's. Asked after the listing: see above."""
    for portion in _portions(storage, folders):
        known, named = _known(db, folders, portion)
        for owner_id, objects in portion.items():
            if owner_id not in known:
                gone = objects if max(one.modified for one in objects) <= until else []
            elif named is not None:
                gone = [one for one in objects if one.key not in named and one.modified <= until]
            else:
                gone = []
            if gone:
                keys = tuple(one.key for one in gone)
                size = sum(one.bytes for one in gone)
                yield Find("orphaned", str(owner_id), len(keys), size, keys, folders.owner)


def _check_acquaintance(db: Database, storage: Storage) -> None:
    """Raises `StrangeStorage` if no job and no product of the database has an object here."""
    for folders in _ALL_FOLDERS:
        if any(_known(db, folders, portion)[0] for portion in _portions(storage, folders)):
            return
    raise StrangeStorage


def _portions(storage: Storage, folders: _Folders) -> Iterator[dict[UUID, list[ListedObject]]]:
    """The owners' folders, some at a time. What is in none of them is somebody else's."""
    found = (
        (owner_id, list(objects))
        for owner_id, objects in groupby(
            storage.walk(folders.prefix), key=lambda one: folders.owner_of(one.key)
        )
        if owner_id is not None
    )
    while portion := dict(islice(found, AT_ONCE)):
        yield portion


def _known(db: Database, folders: _Folders, owners: Iterable[UUID]) -> tuple[set[UUID], set[str] | None]:
    """Those that have a row; and the keys that they name, where they name them all."""
    owner_ids = list(owners)
    with db.read_scope() as session:
        named = folders.named(session, owner_ids) if folders.named else None
        return folders.existing(session, owner_ids), named


def _leftovers(storage: Storage, until: datetime, *, dry_run: bool) -> Iterator[Find]:
    """What health checks leave that die in their middle."""
    old = [one for one in storage.walk(CHECKS) if one.modified <= until]
    if old and not dry_run:
        storage.delete(one.key for one in old)
    if old:
        yield Find("unfinished", "checks", len(old), sum(one.bytes for one in old))

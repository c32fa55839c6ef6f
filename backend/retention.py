"""How jobs go for good: deleted by their owners, never accepted, or expired. Objects first, then rows."""

import logging
from datetime import timedelta

from backend.db import Database
from backend.errors import StorageError
from backend.jobs import ids, queries, store
from backend.jobs.models import Job
from backend.pipelines import PIPELINES
from backend.storage.base import Storage
from backend.views import now

log = logging.getLogger(__name__)

NOTICE = timedelta(days=1)  # for jobs that had ended before there was a time to live
AGAIN_AFTER = timedelta(minutes=1)  # what could not be deleted makes way for others meanwhile


def keep_dates(db: Database, kept_for: timedelta | None) -> None:
    """What has ended has a date while jobs expire, and none while they don't. A date once told stands."""
    with db.read_scope() as session:
        wrong = queries.undated(session) if kept_for else queries.dated(session)
    if not wrong:
        return
    with db.session_scope() as session:
        for job_id in wrong:
            store.set_expiry(session, job_id, kept_for, NOTICE, now())


def expire(db: Database, kept_for: timedelta | None) -> int:
    """Marks a portion of those whose time has come as deleted: they are gone for clients. How many."""
    if kept_for is None:
        return 0
    with db.read_scope() as session:
        expired = queries.expired(session, now())
    if not expired:
        return 0
    with db.session_scope() as session:
        gone = store.expire(session, expired, now())
    log.info("%s jobs have expired", gone)
    return gone


def erase_deleted(db: Database, storage: Storage) -> list[Job]:
    """Erases a portion of what is marked as deleted, and returns it. Raises `StorageError` at the first that
    can't be; that one's turn comes again later.
    """
    with db.read_scope() as session:
        deleted = queries.to_erase(session, now())
    for job in deleted:
        try:
            erase(db, storage, job)
        except StorageError:
            with db.session_scope() as session:
                store.postpone_erasing(session, job.id, now() + AGAIN_AFTER)
            raise
    return deleted


def erase(db: Database, storage: Storage, job: Job) -> None:
    """Deletes the objects of a job that is marked as deleted, then its rows. Raises `StorageError`."""
    storage.delete(_keys(storage, job))
    with db.session_scope() as session:
        store.erase(session, job.id)


def _keys(storage: Storage, job: Job) -> list[str]:
    pipeline = PIPELINES.get(job.pipeline)
    if pipeline is None or job.takes_files:  # it was taken out since; or its keys say what is in them
        return [one.key for one in storage.walk(ids.folder(job.id))]
    return pipeline.object_keys(job)

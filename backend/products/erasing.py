"""How the objects of products go: with what refers to them, or a little later where the storage is away."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from backend.db import Database
from backend.errors import StorageError
from backend.products import ids, store
from backend.storage.base import Storage

log = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(minutes=1)  # what could not be deleted makes way for others meanwhile


def erase_deleted(db: Database, storage: Storage, now: datetime) -> list[UUID]:
    """Erases a portion of the products that are deleted, and returns it. Raises `StorageError` at the first
    that can't be; that one's turn comes again later.
    """
    with db.read_scope() as session:
        deleted = store.to_erase(session, now)
    for product_id in deleted:
        try:
            erase(db, storage, product_id)
        except StorageError:
            with db.session_scope() as session:
                store.postpone_erasing(session, product_id, now + AGAIN_AFTER)
            raise
    return deleted


def erase(db: Database, storage: Storage, product_id: UUID) -> None:
    """Deletes all objects of a product that is deleted, then its rows. Raises `StorageError`."""
    storage.delete(one.key for one in storage.walk(ids.folder(product_id)))
    with db.session_scope() as session:
        store.erase(session, product_id)


def drop(storage: Storage, keys: Sequence[str]) -> None:
    """Deletes objects that nobody refers to any more. Where the storage is away, they are left to `prune`."""
    if not keys:
        return
    try:
        storage.delete(keys)
    except StorageError as exc:
        log.warning("%d objects of products are left to `fanfare prune`: %s", len(keys), exc.detail)

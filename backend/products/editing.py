"""What owners do with their products, one at a time."""

import logging
from datetime import datetime
from uuid import UUID

from backend.db import Database
from backend.errors import NotFound, StorageError
from backend.products import erasing, store
from backend.products.fields import ProductFields
from backend.products.models import Product
from backend.storage.base import Storage

log = logging.getLogger(__name__)


def create(db: Database, owner: str, fields: ProductFields, now: datetime) -> Product:
    """A new product. Raises `Conflict` if there is one with this serial number."""
    with db.session_scope() as session:
        return store.add(session, owner, fields, now)


def read(db: Database, product_id: UUID, owner: str) -> Product:
    """The owner's product. Raises `NotFound`."""
    with db.read_scope() as session:
        product = store.get(session, product_id, owner)
    if product is None:
        raise NotFound("There is no such product.")
    return product


def replace(
    db: Database, storage: Storage, product_id: UUID, owner: str, fields: ProductFields, now: datetime
) -> Product:
    """What is said of it now; what was made of URLs that are no longer named goes.

    Raises `NotFound`, or `Conflict` if another product has this serial number.
    """
    with db.session_scope() as session:
        store.hold_serial_numbers(session, owner)
        product = store.lock(session, product_id, owner)
        if product is None:
            raise NotFound("There is no such product.")
        unneeded = store.replace(session, product, fields, now)
    erasing.drop(storage, unneeded)
    return product


def delete(db: Database, storage: Storage, product_id: UUID, owner: str, now: datetime) -> None:
    """Deletes it with all that was made for it. Raises `NotFound`.

    It is gone for clients when this returns; what the storage could not delete now, the sweep does.
    """
    with db.session_scope() as session:
        product = store.lock(session, product_id, owner)
        if product is None:
            raise NotFound("There is no such product.")
        store.delete(product, now)
    try:
        erasing.erase(db, storage, product_id)
    except StorageError as exc:
        log.warning("objects of product %s are left to the sweep: %s", product_id, exc.detail)

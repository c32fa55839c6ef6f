"""Every question that is asked about products, and every change of them. None of these functions commits.

Who changes what is said of a product, or notes what was made for it, holds its row; whoever takes several
takes them in the order of their ids. Serial numbers are given out one owner at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from backend.errors import Conflict
from backend.jobs.admission import wait_for_others
from backend.jobs.faults import Fault
from backend.jobs.ids import new_id
from backend.jobs.models import MediaItem, Status
from backend.products import ids
from backend.products.fields import MOST_URLS, ProductFields
from backend.products.models import Product, ProductImage


@dataclass(frozen=True)
class Wanted:
    """Which products are listed."""

    serial_number: str | None = None
    name: str | None = None  # a part of it, whatever its case


@dataclass(frozen=True)
class Output:
    """What was made of the image at an input URL, and stored."""

    key: str
    content_type: str
    bytes: int
    sha256: str
    width: int
    height: int
    scale: float
    thumbnails: Sequence[dict[str, Any]] = ()  # key, width, height, content_type, bytes


@dataclass
class Changes:
    """What a portion of products came to."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    unneeded: list[str] = field(default_factory=list)  # keys of objects that nobody refers to any more


# -- questions ----------------------------------------------------------------------------------------

_VISIBLE = sa.select(Product).where(Product.deleted_at.is_(None)).options(selectinload(Product.images))


def get(session: Session, product_id: UUID, owner: str | None = None) -> Product | None:
    """The product with its images; None if there is none, or it is somebody else's."""
    return session.scalar(_owned(product_id, owner))


def lock(session: Session, product_id: UUID, owner: str | None = None) -> Product | None:
    """The same, locked until the session ends."""
    return session.scalar(_owned(product_id, owner).with_for_update())


def lock_by_serial_number(session: Session, owner: str, serial_number: str) -> Product | None:
    """The owner's product with this serial number, locked until the session ends."""
    query = _VISIBLE.where(Product.owner == owner, Product.serial_number == serial_number)
    return session.scalar(query.with_for_update())


def page(
    session: Session, owner: str, wanted: Wanted, limit: int, *, before: UUID | None, after: UUID | None
) -> list[Product]:
    """At most `limit`, newest first: those older than `before`, or the ones just newer than `after`."""
    query = _VISIBLE.where(Product.owner == owner)
    if wanted.serial_number is not None:
        query = query.where(Product.serial_number == wanted.serial_number)
    if wanted.name is not None:
        query = query.where(Product.name.icontains(wanted.name, autoescape=True))
    if after:
        newer = query.where(Product.id > after).order_by(Product.id.asc()).limit(limit)
        return list(session.scalars(newer))[::-1]
    if before:
        query = query.where(Product.id < before)
    return list(session.scalars(query.order_by(Product.id.desc()).limit(limit)))


def portion(session: Session, owner: str, after: UUID | None, limit: int) -> list[Product]:
    """Of all of the owner's products, oldest first, those after this one."""
    query = _VISIBLE.where(Product.owner == owner).order_by(Product.id).limit(limit)
    return list(session.scalars(query.where(Product.id > after) if after else query))


def keys_of(image: ProductImage) -> list[str]:
    """Of the objects that belong to it."""
    made = [] if image.key is None else [image.key]
    return made + [one["key"] for one in image.thumbnails]


def _owned(product_id: UUID, owner: str | None) -> sa.Select[Product]:
    query = _VISIBLE.where(Product.id == product_id)
    return query if owner is None else query.where(Product.owner == owner)


def to_make(
    session: Session,
    owner: str,
    serial_numbers: Sequence[str] | None,
    limit: int,
    *,
    missing: bool,
) -> tuple[list[tuple[UUID, str]], int]:
    """Products and input URLs of images that can be made, oldest products first; and how many there are in
    all. `serial_numbers`: of these products alone; `missing`: those alone that were never made.
    """
    which = [Product.owner == owner, Product.deleted_at.is_(None)]
    if serial_numbers is not None:
        which.append(Product.serial_number.in_(serial_numbers))
    if missing:
        which.append(ProductImage.key.is_(None))
    query = sa.select(Product.id, ProductImage.input_url).join(ProductImage.product).where(*which)
    count = sa.select(sa.func.count()).select_from(query.subquery())
    found = session.execute(query.order_by(Product.id, ProductImage.position).limit(limit))
    return [(product_id, url) for product_id, url in found], session.scalar(count) or 0


# -- what owners say ----------------------------------------------------------------------------------


def add(session: Session, owner: str, fields: ProductFields, now: datetime) -> Product:
    """A new one. Raises `Conflict` if there is one with this serial number."""
    _claim(session, owner, fields.serial_number)
    product = _new(owner, fields, now)
    session.add(product)
    return product


def replace(session: Session, product: Product, fields: ProductFields, now: datetime) -> list[str]:
    """What the owner says of it now; pairs whose URL is still named stay. Raises `Conflict`.

    Returns the keys of objects that nobody refers to any more. The owner's `hold_serial_numbers` comes first.
    """
    if fields.serial_number != product.serial_number:
        _claim(session, product.owner, fields.serial_number)
        product.serial_number = fields.serial_number
    return _apply(product, fields, now)


def put_all(session: Session, owner: str, rows: Sequence[ProductFields], now: datetime) -> Changes:
    """Each by its serial number: made where there is none, else changed. No serial number may come twice."""
    hold_serial_numbers(session, owner)
    query = (
        _VISIBLE.where(Product.owner == owner, Product.serial_number.in_([one.serial_number for one in rows]))
        .order_by(Product.id)
        .with_for_update()
    )
    known = {product.serial_number: product for product in session.scalars(query)}
    new = [fields for fields in rows if fields.serial_number not in known]
    _add_all(session, owner, new, now)
    changes = Changes(created=len(new))
    for fields in rows:
        product = known.get(fields.serial_number)
        if product is None:
            continue  # it is new
        if fields == fields_of(product):
            changes.unchanged += 1
        else:
            changes.unneeded += _apply(product, fields, now)
            changes.updated += 1
    return changes


def add_urls(product: Product, urls: Sequence[str], now: datetime) -> None:
    """Names these of a locked product, too, after those that it has. Raises `ValueError` for too many."""
    known = [image.input_url for image in product.images]
    new = [url for url in dict.fromkeys(urls) if url not in known]
    if len(known) + len(new) > MOST_URLS:
        raise ValueError(f"with these the product would have more than {MOST_URLS}")
    last = max((image.position for image in product.images), default=-1)
    for position, url in enumerate(new, start=last + 1):
        product.images.append(_new_image(product, url, position, now))


def delete(product: Product, now: datetime) -> None:
    """It is gone for clients; its objects and rows go by `erasing`."""
    product.deleted_at = now


def fields_of(product: Product) -> ProductFields:
    """What is said of it now."""
    urls = tuple(image.input_url for image in product.images)
    return ProductFields(product.serial_number, product.name, urls)


def hold_serial_numbers(session: Session, owner: str) -> None:
    """Until the session ends, nobody else gives out serial numbers of this owner. To be asked before rows are
    locked: else two may wait for each other.
    """
    wait_for_others(session, f"\nproducts/{owner}")


def _claim(session: Session, owner: str, serial_number: str) -> None:
    hold_serial_numbers(session, owner)
    if lock_by_serial_number(session, owner, serial_number) is not None:
        raise Conflict(f"You have a product with the serial number {serial_number} already.")


def _new(owner: str, fields: ProductFields, now: datetime) -> Product:
    product = Product(
        id=new_id(), owner=owner, serial_number=fields.serial_number, name=fields.name,
        created_at=now, updated_at=now, images=[],
    )  # fmt: skip
    _set_urls(product, fields.image_urls, now)
    return product


def _add_all(session: Session, owner: str, new: Sequence[ProductFields], now: datetime) -> None:
    """As `_new` for each, in a third of the time: they don't become objects first."""
    products: list[dict[str, Any]] = [
        {"id": new_id(), "owner": owner, "serial_number": fields.serial_number, "name": fields.name,
         "created_at": now, "updated_at": now}
        for fields in new
    ]  # fmt: skip
    images = [
        {"id": ids.image_id(product["id"], url), "product_id": product["id"], "position": position,
         "input_url": url, "thumbnails": [], "updated_at": now}
        for product, fields in zip(products, new, strict=True)
        for position, url in enumerate(fields.image_urls)
    ]  # fmt: skip
    for table, rows in ((Product, products), (ProductImage, images)):
        if rows:
            session.execute(sa.insert(table), rows)


def _apply(product: Product, fields: ProductFields, now: datetime) -> list[str]:
    product.name, product.updated_at = fields.name, now
    return _set_urls(product, fields.image_urls, now)


def _set_urls(product: Product, urls: Sequence[str], now: datetime) -> list[str]:
    named = set(urls)
    known = {image.input_url: image for image in product.images}
    gone = [image for url, image in known.items() if url not in named]
    for image in gone:
        product.images.remove(image)
    for position, url in enumerate(urls):
        if url in known:
            known[url].position = position
        else:
            product.images.append(_new_image(product, url, position, now))
    product.images.sort(key=lambda image: image.position)
    return [key for image in gone for key in keys_of(image)]


def _new_image(product: Product, url: str, position: int, now: datetime) -> ProductImage:
    return ProductImage(
        id=ids.image_id(product.id, url), position=position, input_url=url, thumbnails=[], updated_at=now
    )


# -- what is made for them ----------------------------------------------------------------------------


def record_output(
    session: Session, product_id: UUID, input_url: str, output: Output, *, job_id: UUID | None, now: datetime
) -> list[str] | None:
    """Notes what was made of the image at `input_url`, in place of what was there. The same once more changes
    nothing.

    Returns the keys that nobody refers to any more; None: the product is gone, or doesn't name this URL any
    more, and so the output must go.
    """
    image = _pair(session, product_id, input_url)
    if image is None:
        return None
    before = keys_of(image)
    image.key, image.content_type, image.bytes = output.key, output.content_type, output.bytes
    image.sha256, image.width, image.height = output.sha256, output.width, output.height
    image.scale, image.thumbnails = output.scale, list(output.thumbnails)
    image.job_id, image.updated_at = job_id, now
    image.error_code = image.error_message = image.error_retryable = None
    kept = set(keys_of(image))
    return [key for key in before if key not in kept]


def record_failure(
    session: Session, product_id: UUID, input_url: str, fault: Fault, *, job_id: UUID | None, now: datetime
) -> bool:
    """Notes why nothing was made this time; an earlier output stays. Whether the product has this image."""
    image = _pair(session, product_id, input_url)
    if image is None:
        return False
    image.error_code, image.error_message = fault.code, fault.message
    image.error_retryable = fault.retryable
    image.job_id, image.updated_at = job_id, now
    return True


def record_failures(session: Session, job_id: UUID, at: datetime) -> None:
    """Notes why nothing was made of the images whose items in this job failed at that moment; as of each, an
    earlier output stays. There may be thousands: it takes three statements.
    """
    session.flush()
    failed = (
        MediaItem.job_id == job_id,
        MediaItem.status == Status.FAILED,
        MediaItem.completed_at == at,
        MediaItem.product_id.is_not(None),
    )
    ids_of_products = sa.select(MediaItem.product_id).where(*failed)
    if session.scalar(ids_of_products.limit(1)) is None:
        return
    session.scalars(
        sa.select(Product.id).where(Product.id.in_(ids_of_products)).order_by(Product.id).with_for_update()
    ).all()
    session.execute(
        sa.update(ProductImage)
        .where(
            *failed,
            MediaItem.product_id == ProductImage.product_id,
            MediaItem.source_url == ProductImage.input_url,
        )
        .values(
            error_code=MediaItem.error_code, error_message=MediaItem.error_message,
            error_retryable=MediaItem.error_retryable, job_id=job_id, updated_at=at,
        ),
        execution_options={"synchronize_session": False},
    )  # fmt: skip


def _pair(session: Session, product_id: UUID, input_url: str) -> ProductImage | None:
    product = lock(session, product_id)
    images = product.images if product else []
    return next((image for image in images if image.input_url == input_url), None)


# -- what goes ----------------------------------------------------------------------------------------


def to_erase(session: Session, now: datetime, limit: int = 100) -> list[UUID]:
    """Products that were deleted, and whose objects may still be there; the longest first."""
    query = sa.select(Product.id).where(Product.deleted_at <= now).order_by(Product.deleted_at).limit(limit)
    return list(session.scalars(query))


def deleted(session: Session, now: datetime, after: UUID | None, limit: int = 100) -> list[UUID]:
    """The same, by id, after `after`."""
    query = sa.select(Product.id).where(Product.deleted_at <= now).order_by(Product.id).limit(limit)
    return list(session.scalars(query.where(Product.id > after) if after else query))


def postpone_erasing(session: Session, product_id: UUID, until: datetime) -> None:
    """What could not be erased is tried again then."""
    query = sa.update(Product).where(Product.id == product_id, Product.deleted_at.is_not(None))
    session.execute(query.values(deleted_at=until))


def erase(session: Session, product_id: UUID) -> None:
    """Deletes a product that was deleted, with its images' rows."""
    session.execute(sa.delete(Product).where(Product.id == product_id, Product.deleted_at.is_not(None)))


def existing(session: Session, product_ids: list[UUID]) -> set[UUID]:
    """Those that have a row, deleted and not erased ones too."""
    return set(session.scalars(sa.select(Product.id).where(Product.id.in_(product_ids))))


def named_keys(session: Session, product_ids: list[UUID]) -> set[str]:
    """The keys of all objects that these products' images refer to."""
    query = sa.select(ProductImage).where(ProductImage.product_id.in_(product_ids))
    return {key for image in session.scalars(query) for key in keys_of(image)}

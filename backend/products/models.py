"""The tables of products."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backend.db import Base, Json, UtcDateTime


class Product(Base):
    """Something that its owner sells."""

    __tablename__ = "products"
    __table_args__ = (
        sa.Index("ix_products_owner_id", "owner", "id"),
        sa.Index("ix_products_deleted_at", "deleted_at"),
        sa.Index(
            "uq_products_owner_serial_number",
            "owner",
            "serial_number",
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7: its order is the order of creation
    owner: Mapped[str] = mapped_column(sa.String(64))
    serial_number: Mapped[str] = mapped_column(sa.String(100))
    name: Mapped[str] = mapped_column(sa.String(500))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # gone for clients; its objects are being deleted. In the future: they could not be, tried again then

    images: Mapped[list["ProductImage"]] = relationship(
        back_populates="product",
        order_by="ProductImage.position",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class ProductImage(Base):
    """One pair: an input URL, and what was made of the image there."""

    __tablename__ = "product_images"
    __table_args__ = (sa.Index("ix_product_images_product_id", "product_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)  # uuid5(product, input URL)
    product_id: Mapped[UUID] = mapped_column(sa.ForeignKey("products.id", ondelete="CASCADE"))
    position: Mapped[int]  # its place in the product
    input_url: Mapped[str] = mapped_column(sa.Text)

    # the output, once there is one; a later failure leaves it as it is
    key: Mapped[str | None] = mapped_column(sa.String(512))
    content_type: Mapped[str | None] = mapped_column(sa.String(64))
    bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    width: Mapped[int | None]
    height: Mapped[int | None]
    scale: Mapped[float | None] = mapped_column(sa.Double)
    thumbnails: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)

    job_id: Mapped[UUID | None]  # which tried last. No foreign key: jobs go, images stay
    error_code: Mapped[str | None] = mapped_column(sa.String(64))  # of the last try; None: it went well
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    error_retryable: Mapped[bool | None]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    product: Mapped[Product] = relationship(back_populates="images")

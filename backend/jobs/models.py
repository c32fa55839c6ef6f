"""The tables. The database is the truth; the broker only carries."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backend.db import Base, Json, UtcDateTime


class Status(StrEnum):
    """The users' own words, for jobs and for image generations alike."""

    PENDING = "pending"  # accepted, nobody has begun
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    PARTIALLY_COMPLETED = "partially_completed"  # jobs only: some images failed, the good ones are kept
    FAILED = "failed"
    CANCELED = "canceled"


ENDED = frozenset({Status.COMPLETED, Status.PARTIALLY_COMPLETED, Status.FAILED, Status.CANCELED})
OPEN = tuple(status for status in Status if status not in ENDED)


def _status_column() -> Mapped[Status]:
    return mapped_column(
        sa.Enum(Status, native_enum=False, length=24, values_callable=lambda words: [w.value for w in words]),
        default=Status.PENDING,
    )


class Job(Base):
    """One accepted request."""

    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("ix_jobs_owner_id", "owner", "id"),
        sa.Index("ix_jobs_status_updated_at", "status", "updated_at"),
        sa.Index("ix_jobs_expires_at", "expires_at"),
        sa.Index("ix_jobs_deleted_at", "deleted_at"),
        sa.Index("ix_jobs_held_at", "held_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7: its order is the order of creation
    owner: Mapped[str] = mapped_column(sa.String(64))
    pipeline: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[Status] = _status_column()
    input: Mapped[dict[str, Any]] = mapped_column(Json)
    # `metadata` is taken by SQLAlchemy
    client_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", Json, default=dict)
    webhook: Mapped[dict[str, Any] | None] = mapped_column(Json)
    output: Mapped[dict[str, Any] | None] = mapped_column(Json)  # what a job without images came to
    takes_files: Mapped[bool] = mapped_column(default=False, server_default=sa.false())  # then it has items

    # By step: {"output", "completed_at"} once it is done; before that null, or {"losses"}: how many workers
    # have died over it in this run. None: the job is not made of steps.
    task_context: Mapped[dict[str, Any] | None] = mapped_column(Json)
    total: Mapped[int] = mapped_column(default=0)  # images asked for, or files that are taken
    run: Mapped[int] = mapped_column(default=1)  # 1, and one more for each retry
    last_event: Mapped[int] = mapped_column(default=0)  # seq of the newest of its events

    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    error_retryable: Mapped[bool | None]

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    dispatched_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # None: the broker doesn't have it yet
    sends: Mapped[int] = mapped_column(default=0, server_default="0")  # to the broker, in this run
    claimed_by: Mapped[str | None] = mapped_column(sa.String(64))  # who writes its prompts, or does a step
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    moved_forward_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # `fairness`, in this run
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deadline_at: Mapped[datetime] = mapped_column(UtcDateTime)
    cancel_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # as its client asked
    held_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # its prompts wait for its client's word
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # gone for clients; objects being deleted. In the future: not accepted yet, deleted then if it never is

    to_tell = False  # not in the database: whether deliveries were recorded for this very object
    # Nor these: see `items.load`
    first_items = cast("Sequence[MediaItem]", ())
    item_counts = cast("Mapping[Status, int]", MappingProxyType({}))

    @property
    def steps_done(self) -> dict[str, dict[str, Any]]:
        """What `task_context` has of those that are done."""
        known = (self.task_context or {}).items()
        return {step: done for step, done in known if done and "output" in done}

    images: Mapped[list["ImageGeneration"]] = relationship(
        back_populates="job", order_by="ImageGeneration.index", passive_deletes=True
    )


class ImageGeneration(Base):
    """One prompt, one image, one status."""

    __tablename__ = "image_generations"
    __table_args__ = (
        sa.UniqueConstraint("job_id", "index"),
        sa.Index("ix_image_generations_model_status", "model", "status"),
        sa.Index("ix_image_generations_model_generated_at", "model", "generated_at"),
        sa.Index("ix_image_generations_status_queued_at", "status", "queued_at"),
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True
    )  # uuid5(job, index): the same however often it is planned
    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    index: Mapped[int]
    status: Mapped[Status] = _status_column()
    run: Mapped[int] = mapped_column(default=1)  # the job's run in which it was last begun anew
    prompt: Mapped[str] = mapped_column(sa.Text)
    model: Mapped[str] = mapped_column(sa.String(64))
    seed: Mapped[int] = mapped_column(sa.BigInteger)
    node: Mapped[str | None] = mapped_column(sa.String(128))
    attempts: Mapped[int] = mapped_column(default=0)
    band: Mapped[int | None]  # where it waits: `fairness`. None: not queued yet
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # last
    sends: Mapped[int] = mapped_column(default=0, server_default="0")  # to the broker, in this run
    leased_until: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # as long as it is renewed, a node is at work on it
    losses: Mapped[int] = mapped_column(default=0, server_default="0")  # leases that ended, in this run
    expired_uploads: Mapped[int] = mapped_column(default=0, server_default="0")  # in this run

    # the original, once its node has stored it
    key: Mapped[str | None] = mapped_column(sa.String(512))
    content_type: Mapped[str | None] = mapped_column(sa.String(64))
    bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    width: Mapped[int | None]
    height: Mapped[int | None]
    made_with: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    timings: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)

    # what save_images adds
    thumbnails: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)
    blurhash: Mapped[str | None] = mapped_column(sa.String(128))
    color: Mapped[str | None] = mapped_column(sa.String(7))

    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    error_retryable: Mapped[bool | None]

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    generated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    job: Mapped[Job] = relationship(back_populates="images")


class MediaItem(Base):
    """One file from outside, uploaded or behind a URL, and what was made of it."""

    __tablename__ = "media_items"
    __table_args__ = (
        sa.UniqueConstraint("job_id", "index"),
        sa.Index("ix_media_items_job_id_status_due_at", "job_id", "status", "due_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # uuid5(job, index)
    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    index: Mapped[int]
    status: Mapped[Status] = _status_column()
    filename: Mapped[str | None] = mapped_column(sa.String(255))  # as its client calls it; of an upload
    source_url: Mapped[str | None] = mapped_column(sa.Text)
    product_id: Mapped[UUID | None]  # whose picture it is. No foreign key: products may go
    attempts: Mapped[int] = mapped_column(default=0)  # in the job's last run
    losses: Mapped[int] = mapped_column(default=0)  # workers that died while they had it in hand
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # not to be tried again before

    # what was made of it
    key: Mapped[str | None] = mapped_column(sa.String(512))
    content_type: Mapped[str | None] = mapped_column(sa.String(64))
    bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    given_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)  # as it came
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    width: Mapped[int | None]
    height: Mapped[int | None]
    thumbnails: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)

    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    error_retryable: Mapped[bool | None]

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class JobEvent(Base):
    """One thing that happened to a job. Streams, polls and webhooks all read these rows."""

    __tablename__ = "job_events"

    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1, 2, 3, ... without a gap
    type: Mapped[str] = mapped_column(sa.String(64))  # job.started, image.generated, ...
    data: Mapped[dict[str, Any]] = mapped_column(Json)  # what changed, as it was then
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookEndpoint(Base):
    """A receiver that is told of all jobs of an owner."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (sa.Index("ix_webhook_endpoints_owner", "owner"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(64))
    url: Mapped[str] = mapped_column(sa.Text)
    events: Mapped[list[str]] = mapped_column(Json)
    description: Mapped[str] = mapped_column(sa.Text)
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None] = mapped_column(sa.Text)  # None: its owner did it
    secret_version: Mapped[int] = mapped_column(default=1)  # secrets are derived, not kept
    old_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)  # the one before signs as well
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OwnerSecret(Base):
    """Which of an owner's secrets signs the webhooks of single jobs, once it was changed."""

    __tablename__ = "webhook_secrets"

    owner: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    secret_version: Mapped[int]
    old_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """One event that one receiver still has to be told, or was told."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.Index("ix_webhook_deliveries_due_at", "due_at"),
        sa.Index("ix_webhook_deliveries_owner_id", "owner", "id"),
        sa.Index("ix_webhook_deliveries_job_id_seq", "job_id", "seq"),
        sa.Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    owner: Mapped[str] = mapped_column(sa.String(64))
    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int]  # of the event
    # None: the job's own webhook. No foreign key: an endpoint that goes must be in no job's way
    endpoint_id: Mapped[UUID | None]
    attempts: Mapped[int] = mapped_column(default=0)  # since it was recorded, or last asked for again
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # None: delivered or given up
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # to the broker; None: not for this attempt
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    event: Mapped[JobEvent] = relationship(
        primaryjoin="and_(foreign(WebhookDelivery.job_id) == JobEvent.job_id,"
        " foreign(WebhookDelivery.seq) == JobEvent.seq)",
        viewonly=True,
    )
    log: Mapped[list["WebhookAttempt"]] = relationship(order_by="WebhookAttempt.id", viewonly=True)


class WebhookAttempt(Base):
    """One try at one delivery: written when it is begun, and completed when it is known how it went."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (sa.Index("ix_webhook_attempts_delivery_id", "delivery_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    delivery_id: Mapped[UUID] = mapped_column(sa.ForeignKey("webhook_deliveries.id", ondelete="CASCADE"))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status_code: Mapped[int | None]  # what the receiver answered
    reason: Mapped[str | None] = mapped_column(sa.Text)  # why it failed
    duration_ms: Mapped[int | None]  # None: not over yet, or nobody lived to tell


class IdempotencyKey(Base):
    """A client's word for one submission; it gets the first answer again."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (sa.Index("ix_idempotency_keys_job_id", "job_id"),)

    owner: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(sa.String(64))  # of the request
    job_id: Mapped[UUID]
    response: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ApiKey(Base):
    """An owner of jobs. The key itself is shown once and never stored."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(128))
    prefix: Mapped[str] = mapped_column(sa.String(16), unique=True)  # the key's public part, to find it by
    hash: Mapped[str] = mapped_column(sa.String(64))  # SHA-256 of the key: it has 256 random bits
    weight: Mapped[int] = mapped_column(default=1, server_default="1")  # of its owner: `fairness`
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

"""The job as the outside sees it: the same object in polls, lists, streams and webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import redis
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from backend.jobs.models import ENDED, ImageGeneration, Status
from backend.jobs.models import Job as JobRow
from backend.resources import Resources


class View(BaseModel):
    """Base of all answers: every field is always there, so that generated clients are pleasant."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class ErrorView(View):
    """Why a job or an image failed."""

    code: str = Field(description="Stable: branch on it.", examples=["out_of_memory"])
    message: str = Field(description="For people.")
    retryable: bool = Field(description="Whether `retry` makes sense.")


class Progress(View):
    """How far a job is, in images."""

    completed: int = Field(description="Images whose original is stored.", examples=[2])
    failed: int = Field(examples=[0])
    total: int = Field(description="Images asked for.", examples=[4])
    fraction: float = Field(ge=0, le=1, description="0 to 1, counting the steps of images in hand.")


class WaitingFor(View):
    """Why a job waits."""

    reason: Literal["no_worker_for_model", "ahead_of_you", "cold_load", "quota", "broker"]
    message: str
    position: int | None = Field(default=None, description="How many images are ahead, for `ahead_of_you`.")


class Placeholder(View):
    """What a page may show until the image has loaded."""

    blurhash: str = Field(examples=["LEHV6nWB2yk8pyo0adR*.7kCMdnj"])
    color: str = Field(pattern="^#[0-9a-f]{6}$", examples=["#b5651d"])


class ThumbnailView(View):
    """A smaller copy of an image."""

    width: int
    height: int
    content_type: str = Field(examples=["image/webp"])
    bytes: int
    url: str


class TimingsView(View):
    """Milliseconds."""

    queued_ms: int | None = None
    generate_ms: int | None = None
    store_ms: int | None = None


class Image(View):
    """One prompt, one image, one status."""

    id: UUID
    index: int
    status: Literal["pending", "in_progress", "completed", "failed", "canceled"]
    prompt: str
    model: str
    seed: int
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    bytes: int | None = None
    url: str | None = Field(
        default=None, description="The original; there as soon as its node has stored it."
    )
    url_expires_at: datetime | None = None
    placeholder: Placeholder | None = None
    srcset: str | None = Field(default=None, description="Ready for <img srcset>.")
    thumbnails: list[ThumbnailView] = []
    timings: TimingsView = TimingsView()
    made_with: dict[str, JsonValue] = {}
    attempts: int = 0
    error: ErrorView | None = None


class JobUrls(View):
    """Where to go from here."""

    get: str
    events: str
    cancel: str
    retry: str


class Job(View):
    """One accepted request."""

    task_id: UUID
    pipeline: str = Field(examples=["thumbnails"])
    status: Status
    waiting_for: WaitingFor | None = None
    progress: Progress
    input: dict[str, JsonValue]
    images: list[Image]
    error: ErrorView | None = None
    metadata: dict[str, JsonValue]
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    urls: JobUrls


def render(
    resources: Resources,
    row: JobRow,
    *,
    fractions: dict[int, float] | None = None,
    waiting_for: WaitingFor | None = None,
) -> Job:
    """The view of one job whose images are loaded. `fractions`: how far images in hand are, by index."""
    base = f"{resources.settings.public_url}/v1/jobs/{row.id}"
    return Job(
        task_id=row.id,
        pipeline=row.pipeline,
        status=row.status,
        waiting_for=waiting_for,
        progress=progress_of(row, fractions or {}),
        input=row.input,
        images=[render_image(resources, image) for image in row.images],
        error=_error(row.error_code, row.error_message, row.error_retryable),
        metadata=row.client_metadata,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        expires_at=row.expires_at,
        urls=JobUrls(get=base, events=f"{base}/events", cancel=f"{base}/cancel", retry=f"{base}/retry"),
    )


def progress_of(row: JobRow, fractions: dict[int, float]) -> Progress:
    """Counts images; one in hand counts by its fraction, a stored one without thumbnails as nearly done."""
    completed = failed = 0
    done = 0.0
    for image in row.images:
        if image.status is Status.COMPLETED:
            completed, done = completed + 1, done + 1
        elif image.status in (Status.FAILED, Status.CANCELED):
            failed, done = failed + (image.status is Status.FAILED), done + 1
        elif image.generated_at:
            completed, done = completed + 1, done + 0.95
        elif image.status is Status.IN_PROGRESS:
            done += 0.9 * fractions.get(image.index, 0.0)
    total = max(row.total, len(row.images), 1)
    fraction = 1.0 if row.status in ENDED else min(round(done / total, 4), 0.99)
    return Progress(completed=completed, failed=failed, total=total, fraction=fraction)


def render_image(resources: Resources, image: ImageGeneration) -> Image:
    """The view of one image, with fresh signed URLs."""
    view = Image(
        id=image.id,
        index=image.index,
        status=image.status.value,
        prompt=image.prompt,
        model=image.model,
        seed=image.seed,
        width=image.width,
        height=image.height,
        content_type=image.content_type,
        bytes=image.bytes,
        timings=TimingsView(**image.timings),
        made_with=image.made_with,
        attempts=image.attempts,
        error=_error(image.error_code, image.error_message, image.error_retryable),
    )
    if image.key and image.status is not Status.FAILED:
        _add_urls(resources, view, image)
    return view


def _add_urls(resources: Resources, view: Image, image: ImageGeneration) -> None:
    ttl = resources.settings.download_url_ttl_s
    original = resources.storage.download_url(image.key or "", expires_in=ttl)
    view.url, view.url_expires_at = original.url, original.expires_at
    view.thumbnails = [
        ThumbnailView(
            width=one["width"],
            height=one["height"],
            content_type=one["content_type"],
            bytes=one["bytes"],
            url=resources.storage.download_url(one["key"], expires_in=ttl).url,
        )
        for one in image.thumbnails
    ]
    view.srcset = ", ".join(f"{one.url} {one.width}w" for one in view.thumbnails) or None
    if image.blurhash and image.color:
        view.placeholder = Placeholder(blurhash=image.blurhash, color=image.color)


def _error(code: str | None, message: str | None, retryable: bool | None) -> ErrorView | None:
    return ErrorView(code=code, message=message or "", retryable=bool(retryable)) if code else None


def fractions_of(resources: Resources, rows: Sequence[JobRow]) -> dict[UUID, dict[int, float]]:
    """How far the images in hand of these jobs are; nothing when the result store is away."""
    running = [row.id for row in rows if row.status is Status.IN_PROGRESS]
    try:
        return resources.signals.progress(running)
    except redis.RedisError:
        return {}


def as_json(view: View) -> dict[str, Any]:
    """JSON-ready form."""
    return view.model_dump(mode="json")


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)

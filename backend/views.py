"""The job as the outside sees it: the same object in polls, lists, streams and webhooks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import redis
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from backend.jobs import ids
from backend.jobs.models import ENDED, ImageGeneration, MediaItem, Status
from backend.jobs.models import Job as JobRow
from backend.media_urls import media_url
from backend.resources import Resources
from backend.storage.base import SignedDownload

Links = Mapping[str, SignedDownload]  # by key


class View(BaseModel):
    """Base of all answers: every field is always there, so that generated clients are pleasant."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Error(View):
    """Why a job or an image failed."""

    code: str = Field(description="Stable: branch on it.", examples=["out_of_memory"])
    message: str = Field(description="For people.")
    retryable: bool = Field(description="Whether `retry` makes sense.")


class Progress(View):
    """How far a job is: in images, in files of which they are made, or in steps where it is made of them."""

    completed: int = Field(description="Images that are stored, or steps that are done.", examples=[2])
    failed: int = Field(description="Images that could not be made; 1 where a step failed.", examples=[0])
    total: int = Field(description="Images asked for, files that are taken, or steps.", examples=[4])
    fraction: float = Field(ge=0, le=1, description="0 to 1, counting the steps of images in hand.")


class WaitingFor(View):
    """Why a job waits."""

    reason: Literal[
        "no_worker_for_model", "ahead_of_you", "cold_load", "quota", "review", "upload", "broker"
    ] = Field(description="Stable: branch on it.")
    message: str = Field(description="For people.")
    position: int | None = Field(
        default=None, description="How many images are ahead, for `ahead_of_you` and `cold_load`."
    )
    estimate_s: int | None = Field(
        default=None,
        description="Seconds until its first image is begun, for `ahead_of_you`, by how long the newest "
        "images took and by the workers that are there; null: not known.",
    )


class Placeholder(View):
    """What a page may show until the image has loaded."""

    blurhash: str = Field(description="By https://blurha.sh.", examples=["LEHV6nWB2yk8pyo0adR*.7kCMdnj"])
    color: str = Field(description="The dominant one.", pattern="^#[0-9a-f]{6}$", examples=["#b5651d"])


class Thumbnail(View):
    """A smaller copy of an image."""

    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    content_type: str = Field(examples=["image/webp"])
    bytes: int
    url: str = Field(description="Signed; expires with the image's own.")


class Timings(View):
    """How long an image took, in milliseconds."""

    queued_ms: int | None = Field(default=None, description="From the plan until an engine began.")
    generate_ms: int | None = Field(default=None, description="In the engine, whole.")
    load_ms: int | None = Field(default=None, description="Of that: the model, where it had to be loaded.")
    encode_ms: int | None = Field(default=None, description="Of that: the prompts.")
    denoise_ms: int | None = Field(default=None, description="Of that: the steps.")
    decode_ms: int | None = Field(default=None, description="Of that: from latents to pixels.")
    store_ms: int | None = Field(default=None, description="The file of the original, whole.")
    upload_ms: int | None = Field(default=None, description="Of that: sending it to the storage.")


class Reproduces(View):
    """Which image was made again, and whether it came out the same."""

    image_id: UUID = Field(description="The original.")
    task_id: UUID = Field(description="Its job, which may be deleted by now.")
    identical: bool | None = Field(
        description="Whether both have the same bytes, those that say how they were made included; "
        "null: it isn't made yet, or was not made."
    )


class Image(View):
    """One prompt, one image, one status."""

    id: UUID
    index: int = Field(description="Its place in the job, from 0.")
    status: Literal["pending", "in_progress", "completed", "failed", "canceled"]
    prompt: str = Field(description="Written by the language model from the message.")
    model: str = Field(description="The alias that it is made with.", examples=["sketch"])
    seed: int = Field(description="Prompt, model and seed make the same image again.")
    width: int | None = Field(default=None, description="Pixels of the original.")
    height: int | None = Field(default=None, description="Pixels of the original.")
    content_type: str | None = Field(default=None, description="Of the original.", examples=["image/webp"])
    bytes: int | None = Field(default=None, description="Size of the original.")
    sha256: str | None = Field(default=None, description="Of the original's bytes.")
    url: str | None = Field(
        default=None, description="The original; there as soon as its node has stored it."
    )
    url_expires_at: datetime | None = Field(
        default=None, description="Get the job again for fresh URLs before this moment."
    )
    placeholder: Placeholder | None = Field(default=None, description="There once the image is completed.")
    srcset: str | None = Field(default=None, description="Ready for <img srcset>.")
    thumbnails: list[Thumbnail] = Field(default=[], description="Smallest first; there once it is completed.")
    timings: Timings = Timings()
    made_with: dict[str, JsonValue] = Field(
        default={}, description="Engine, versions and settings: enough to make it again."
    )
    reproduces: Reproduces | None = Field(default=None, description="For images that were made again.")
    attempts: int = Field(default=0, description="How often a node has begun with it.")
    error: Error | None = Field(default=None, description="Why it failed, if it did.")


class Upload(View):
    """A PUT that the holder may make until it expires; no key is needed."""

    url: str
    headers: dict[str, str] = Field(description="To be sent exactly as they are.")
    expires_at: datetime
    max_bytes: int


class Item(View):
    """One file from outside, uploaded or behind a URL, and the image that was made of it."""

    id: UUID
    index: int = Field(description="Its place in the job, from 0.")
    status: Literal["pending", "in_progress", "completed", "failed", "canceled"]
    filename: str | None = Field(default=None, description="Of an upload, as its client calls it.")
    source_url: str | None = Field(default=None, description="Where it is fetched from, if it is.")
    product_id: UUID | None = Field(default=None, description="The product whose image it is.")
    upload: Upload | None = Field(
        default=None, description="Where to send the file; there while the job waits for it."
    )
    url: str | None = Field(
        default=None, description="The image. It is good for as long as the image exists, for whoever has it."
    )
    width: int | None = Field(default=None, description="Pixels of the image.")
    height: int | None = Field(default=None, description="Pixels of the image.")
    content_type: str | None = Field(default=None, description="Of the image.", examples=["image/webp"])
    bytes: int | None = Field(default=None, description="Size of the image.")
    original_bytes: int | None = Field(default=None, description="Size of the file as it came.")
    sha256: str | None = Field(default=None, description="Of the image's bytes.")
    srcset: str | None = Field(default=None, description="Ready for <img srcset>.")
    thumbnails: list[Thumbnail] = Field(default=[], description="Smallest first.")
    attempts: int = Field(default=0, description="How often it was begun.")
    error: Error | None = Field(default=None, description="Why nothing was made of it, if so.")


class JobUrls(View):
    """Where to go from here."""

    get: str = Field(description="GET: the job as it is then.")
    events: str = Field(description="GET: its event stream.")
    cancel: str = Field(description="POST: stop it.")
    retry: str = Field(description="POST: run again what failed.")
    items: str = Field(description="GET: all of its items, in pages.")


class Job(View):
    """One accepted request."""

    task_id: UUID = Field(description="UUIDv7; also the id of the Celery result.")
    pipeline: str = Field(description="What handles it.", examples=["thumbnails"])
    status: Status = Field(description="`partially_completed`: some images failed, the good ones are kept.")
    waiting_for: WaitingFor | None = Field(
        default=None, description="Why nobody is at work on it; null while somebody is, and after its end."
    )
    progress: Progress
    input: dict[str, JsonValue] = Field(description="The request, with its defaults filled in.")
    images: list[Image] = Field(description="One per prompt; empty until the prompts are written.")
    items: list[Item] = Field(
        default=[],
        description="Of a job that takes files, the first 100; `urls.items` has all. Empty for all others.",
    )
    output: dict[str, JsonValue] | None = Field(
        default=None, description="What a job without images came to, once it is completed."
    )
    error: Error | None = Field(default=None, description="Why the job as a whole failed, if it did.")
    metadata: dict[str, JsonValue] = Field(description="As you sent it.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(default=None, description="When the work on it began.")
    completed_at: datetime | None = Field(default=None, description="When it ended, however it ended.")
    cancel_at: datetime | None = Field(
        default=None, description="When it is canceled if it has not ended: `Cancel-After`; null: never."
    )
    expires_at: datetime | None = Field(
        default=None, description="When it is deleted by itself; null: never."
    )
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
    links = _sign_all(resources, row.images)
    return Job(
        task_id=row.id,
        pipeline=row.pipeline,
        status=row.status,
        waiting_for=waiting_for,
        progress=progress_of(row, fractions or {}),
        input=row.input,
        images=[_render_image(links, image, row.input) for image in row.images],
        items=[render_item(resources, item, row) for item in row.first_items],
        output=row.output,
        error=_error(row.error_code, row.error_message, row.error_retryable),
        metadata=row.client_metadata,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        cancel_at=row.cancel_at,
        expires_at=row.expires_at,
        urls=JobUrls(
            get=base,
            events=f"{base}/events",
            cancel=f"{base}/cancel",
            retry=f"{base}/retry",
            items=f"{base}/items",
        ),
    )


def progress_of(row: JobRow, fractions: dict[int, float]) -> Progress:
    """Counts images; one in hand counts by its fraction, a stored one without thumbnails as nearly done."""
    if row.takes_files:
        return _progress_of_items(row)
    if row.task_context is not None:
        return _progress_in_steps(row)
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
    total = max(row.total, len(row.images))
    fraction = 1.0 if row.status in ENDED else min(round(done / max(total, 1), 4), 0.99)
    return Progress(completed=completed, failed=failed, total=total, fraction=fraction)


def _progress_of_items(row: JobRow) -> Progress:
    completed, failed = (row.item_counts.get(status, 0) for status in (Status.COMPLETED, Status.FAILED))
    fraction = min(round((completed + failed) / max(row.total, 1), 4), 0.99)
    return Progress(
        completed=completed,
        failed=failed,
        total=row.total,
        fraction=1.0 if row.status in ENDED else fraction,
    )


def _progress_in_steps(row: JobRow) -> Progress:
    completed, total = len(row.steps_done), len(row.task_context or {})
    fraction = 1.0 if row.status in ENDED else round(completed / max(total, 1), 4)
    return Progress(
        completed=completed, failed=int(row.status is Status.FAILED), total=total, fraction=fraction
    )


def render_item(resources: Resources, item: MediaItem, row: JobRow) -> Item:
    """The view of one file from outside."""
    is_to_come = row.held_at and item.status is Status.PENDING
    view = Item(
        id=item.id,
        index=item.index,
        status=item.status.value,
        filename=item.filename,
        source_url=item.source_url,
        product_id=item.product_id,
        upload=upload_url(resources, row.id, item.index) if is_to_come else None,
        url=media_url(resources, item.key) if item.key else None,
        width=item.width,
        height=item.height,
        content_type=item.content_type,
        bytes=item.bytes,
        original_bytes=item.given_bytes,
        sha256=item.sha256,
        thumbnails=thumbnails_of(item.thumbnails, lambda key: media_url(resources, key)),
        attempts=item.attempts,
        error=_error(item.error_code, item.error_message, item.error_retryable),
    )
    view.srcset = ", ".join(f"{one.url} {one.width}w" for one in view.thumbnails) or None
    return view


def thumbnails_of(stored: Iterable[Mapping[str, Any]], url_of: Callable[[str], str]) -> list[Thumbnail]:
    """The views of thumbnails as rows have them; `url_of` tells a key's URL."""
    return [
        Thumbnail(
            width=one["width"],
            height=one["height"],
            content_type=one["content_type"],
            bytes=one["bytes"],
            url=url_of(one["key"]),
        )
        for one in stored
    ]


def upload_url(resources: Resources, job_id: UUID, index: int) -> Upload:
    """Where a file of the job is to be sent. Raises `StorageUnavailable`."""
    settings = resources.settings
    signed = resources.storage.client_upload_url(
        ids.upload_key(job_id, index),
        content_type="application/octet-stream",
        max_bytes=settings.max_file_bytes,
        expires_in=settings.upload_url_ttl_s,
    )
    return Upload(
        url=signed.url, headers=signed.headers, expires_at=signed.expires_at, max_bytes=signed.max_bytes
    )


def _sign_all(resources: Resources, images: Sequence[ImageGeneration]) -> Links:
    """Fresh URLs of all files of these images, asked for at once."""
    keys = [
        key
        for image in images
        if image.key and image.status is not Status.FAILED
        for key in (image.key, *(one["key"] for one in image.thumbnails))
    ]
    if not keys:
        return {}
    signed = resources.storage.download_urls(keys, expires_in=resources.settings.download_url_ttl_s)
    return dict(zip(keys, signed, strict=True))


def _render_image(links: Links, image: ImageGeneration, job_input: Mapping[str, Any]) -> Image:
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
        sha256=image.sha256,
        timings=Timings(**image.timings),
        made_with=image.made_with,
        reproduces=_reproduces(image, job_input),
        attempts=image.attempts,
        error=_error(image.error_code, image.error_message, image.error_retryable),
    )
    if image.key in links:
        _add_urls(links, view, image)
    return view


def _reproduces(image: ImageGeneration, job_input: Mapping[str, Any]) -> Reproduces | None:
    original = job_input.get("original")
    if original is None:
        return None
    identical = image.sha256 == original["sha256"] if image.sha256 else None
    return Reproduces(image_id=job_input["image_id"], task_id=original["task_id"], identical=identical)


def _add_urls(links: Links, view: Image, image: ImageGeneration) -> None:
    original = links[image.key or ""]
    view.url, view.url_expires_at = original.url, original.expires_at
    view.thumbnails = thumbnails_of(image.thumbnails, lambda key: links[key].url)
    view.srcset = ", ".join(f"{one.url} {one.width}w" for one in view.thumbnails) or None
    if image.blurhash and image.color:
        view.placeholder = Placeholder(blurhash=image.blurhash, color=image.color)


def _error(code: str | None, message: str | None, retryable: bool | None) -> Error | None:
    return Error(code=code, message=message or "", retryable=bool(retryable)) if code else None


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

"""The chord's callback: thumbnails of all images side by side, then all rows and the job's end at once."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore
from pydantic import ValidationError

from backend import images, resources
from backend.celery_app import app
from backend.errors import ImageUnreadable, ObjectNotFound, ObjectTooLarge
from backend.jobs import ids, queries, store
from backend.jobs.models import ENDED, ImageGeneration, Job, Status
from backend.jobs.store import Fault, SavedImage
from backend.resources import Resources
from backend.tasks import lifecycle, notify
from backend.tasks.base import PATIENCE, JobTask
from backend.tasks.gpu import fan_out
from backend.views import now
from contract.messages import FailureCode, GeneratedImage, ImageFailure
from contract.queues import SAVE_IMAGES

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 4  # images decoded at once: each may take max_image_pixels x 4 bytes
UPLOAD_ATTEMPTS = 3  # how often an image whose upload URL had expired is made anew

Outcome = SavedImage | Fault


@app.task(
    name=SAVE_IMAGES,
    bind=True,
    base=JobTask,
    ignore_result=False,
    soft_time_limit=900,
    time_limit=960,
    **PATIENCE,
)
def save_images(
    self: JobTask, results: Sequence[object], *, job_id: str, run: int, attempt: int = 0
) -> dict[str, Any]:
    """Ends the job. Its value is what `AsyncResult(task_id).get()` gives."""
    parts = resources.current()
    job, reports = _take_reports(parts, UUID(job_id), run, results)
    if job is None:
        return _resolve(parts, UUID(job_id))
    again = _expired(parts, job, reports) if attempt + 1 < UPLOAD_ATTEMPTS else []
    if again:
        log.info("job %s: %s upload URLs had expired; signed anew", job_id, len(again))
        save = save_images.s(job_id=job_id, run=run, attempt=attempt + 1)
        return self.replace(fan_out(parts, job, again, save, attempt + 1))
    _finish(parts, job, reports)
    return _resolve(parts, UUID(job_id))


def _take_reports(
    parts: Resources, job_id: UUID, run: int, results: Sequence[object]
) -> tuple[Job | None, list[GeneratedImage | ImageFailure]]:
    """Writes down whatever the nodes' own messages have not said yet."""
    reports = [report for result in results if (report := _parse(result)) is not None]
    with parts.db.session_scope() as session:
        for report in reports:
            if report.job_id == job_id:
                lifecycle.take_result(session, report)
        job = store.lock(session, job_id)
        if job is None or job.status in ENDED or job.run != run:
            return None, []
        return job, reports


def _parse(result: object) -> GeneratedImage | ImageFailure | None:
    try:
        return lifecycle.parse_result(result)
    except ValidationError:
        log.exception("a node's report is not one")  # its image ends as worker_lost, its siblings are saved
        return None


def _expired(
    parts: Resources, job: Job, reports: Sequence[GeneratedImage | ImageFailure]
) -> list[ImageGeneration]:
    indexes = [
        report.index
        for report in reports
        if isinstance(report, ImageFailure) and report.code is FailureCode.UPLOAD_EXPIRED
    ]
    if not indexes:
        return []
    with parts.db.session_scope() as session:
        locked = store.lock(session, job.id)
        return store.renew(session, locked, indexes, now()) if locked else []


def _finish(parts: Resources, job: Job, reports: Sequence[GeneratedImage | ImageFailure]) -> None:
    with parts.db.read_scope() as session:
        originals = store.generated(session, job)
    faults = {r.index: _fault(r) for r in reports if isinstance(r, ImageFailure)}
    saved: list[SavedImage] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="thumbnails") as pool:
        outcomes = pool.map(lambda image: _save(parts, job, image), originals)
        for image, outcome in zip(originals, outcomes, strict=True):
            if isinstance(outcome, SavedImage):
                saved.append(outcome)
            else:
                faults[image.index] = outcome
    with parts.db.session_scope() as session:
        store.save(session, job.id, job.run, saved, faults, now(), parts.settings.job_ttl)
    notify.kick(parts, job.id)


def _fault(failure: ImageFailure) -> Fault:
    return Fault(failure.code.value, failure.message, failure.retryable)


def _save(parts: Resources, job: Job, image: ImageGeneration) -> Outcome:
    """Makes and stores the thumbnails of one original. `StorageUnavailable` goes out: all is tried again."""
    limit = parts.settings.max_upload_bytes
    try:
        data = parts.storage.get(image.key or "", max_bytes=limit)
        prepared = images.prepare(
            data,
            sizes=job.input["thumbnail_sizes"],
            fmt=parts.settings.thumbnail_format,
            max_pixels=parts.settings.max_image_pixels,
        )
    except ObjectNotFound:
        return Fault("original_missing", "The image was reported as stored, but isn't there.", retryable=True)
    except (ImageUnreadable, ObjectTooLarge) as exc:
        return Fault("original_corrupt", f"What was stored can't be used: {exc.detail}", retryable=True)
    digest = hashlib.sha256(data).hexdigest()
    if digest != image.sha256:
        log.warning("image %s is not what its node reported; the stored one stands", image.id)
    return SavedImage(
        index=image.index,
        run=image.run,
        bytes=len(data),
        sha256=digest,
        content_type=prepared.content_type,
        width=prepared.width,
        height=prepared.height,
        thumbnails=[_store_thumbnail(parts, image, one) for one in prepared.thumbnails],
        blurhash=prepared.blurhash,
        color=prepared.color,
    )


def _store_thumbnail(parts: Resources, image: ImageGeneration, thumbnail: images.Thumbnail) -> dict[str, Any]:
    extension = thumbnail.content_type.removeprefix("image/")
    size = max(thumbnail.width, thumbnail.height)
    key = ids.thumbnail_key(image.job_id, image.index, size, extension)
    parts.storage.put(key, thumbnail.data, thumbnail.content_type)
    return {
        "key": key,
        "width": thumbnail.width,
        "height": thumbnail.height,
        "content_type": thumbnail.content_type,
        "bytes": len(thumbnail.data),
    }


def _resolve(parts: Resources, job_id: UUID) -> dict[str, Any]:
    """What Celery users see of the job's end: the truth, in short."""
    with parts.db.read_scope() as session:
        job = queries.get(session, job_id)
    if job is None:
        raise Ignore
    if job.status in (Status.FAILED, Status.CANCELED):
        lifecycle.publish_end(parts, job)
        raise Ignore
    lifecycle.forget_signals(parts, job_id)
    made = [
        {"id": str(image.id), "index": image.index, "status": image.status.value, "key": image.key}
        for image in job.images
    ]
    return {"task_id": str(job_id), "status": job.status.value, "images": made}

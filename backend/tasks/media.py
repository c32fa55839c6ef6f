"""What ends a batch: thumbnails of all images side by side, then all rows and the job's end at once."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore

from backend import images, resources
from backend.celery_app import app
from backend.errors import ImageUnreadable, ObjectNotFound, ObjectTooLarge
from backend.jobs import ids, queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import ENDED, ImageGeneration, Job, Status
from backend.jobs.store import SavedImage
from backend.resources import Resources
from backend.tasks import lifecycle, notify
from backend.tasks.base import PATIENCE, JobTask
from backend.views import now
from contract.queues import SAVE_IMAGES

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 4  # images decoded at once: each may take max_image_pixels x 4 bytes
UPLOAD_ATTEMPTS = 3  # how often an image whose upload URL had expired is made anew

Outcome = SavedImage | Fault


@app.task(
    name=SAVE_IMAGES,
    base=JobTask,
    ignore_result=False,
    soft_time_limit=600,
    time_limit=630,
    **PATIENCE,
)
def save_images(*, job_id: str, run: int) -> dict[str, Any]:
    """Ends the job. Its value is what `AsyncResult(task_id).get()` gives."""
    parts = resources.current()
    with parts.db.read_scope() as session:
        job = queries.get(session, UUID(job_id))
    if job is None or (store.unmade(job) and job.status not in ENDED):
        raise Ignore  # deleted, or a message of an earlier run
    if job.run == run and store.is_made(job):
        job = _finish(parts, job) or job
    return _resolve(parts, job)


def _finish(parts: Resources, job: Job) -> Job | None:
    """Saves the whole batch in one transaction. None: somebody else has ended the job meanwhile."""
    originals = store.generated(job)
    saved: list[SavedImage] = []
    faults: dict[int, Fault] = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="thumbnails") as pool:
        outcomes = pool.map(lambda image: _save(parts, job, image), originals)
        for image, outcome in zip(originals, outcomes, strict=True):
            if isinstance(outcome, SavedImage):
                saved.append(outcome)
            else:
                faults[image.index] = outcome
    with parts.db.session_scope() as session:
        ended = store.save(session, job.id, job.run, saved, faults, now(), parts.settings.job_ttl)
    if ended:
        notify.kick(parts, ended)
    return ended


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
    return store_thumbnail(parts, key, thumbnail)


def store_thumbnail(
    parts: Resources, key: str, thumbnail: images.Thumbnail, *, public: bool = False
) -> dict[str, Any]:
    """Stores it, and returns what rows have of it. `public` as in the storage port."""
    parts.storage.put(key, thumbnail.data, thumbnail.content_type, public=public)
    return {
        "key": key,
        "width": thumbnail.width,
        "height": thumbnail.height,
        "content_type": thumbnail.content_type,
        "bytes": len(thumbnail.data),
    }


def _resolve(parts: Resources, job: Job) -> dict[str, Any]:
    """What Celery users see of the job's end: the truth, in short."""
    if job.status in (Status.FAILED, Status.CANCELED):
        lifecycle.publish_end(parts, job)
        raise Ignore
    lifecycle.end_signals(parts, job)
    made = [
        {"id": str(image.id), "index": image.index, "status": image.status.value, "key": image.key}
        for image in job.images
    ]
    return {"task_id": str(job.id), "status": job.status.value, "images": made}

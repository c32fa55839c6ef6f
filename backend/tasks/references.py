"""Fetches what a job's images start from, and stores what the nodes will need of it."""

import logging
import random
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore
from PIL import Image

from backend import references, resources
from backend.celery_app import app
from backend.errors import (
    FanfareError,
    ImageUnreadable,
    ObjectNotFound,
    ObjectTooLarge,
    ReferenceAway,
    ReferenceRefused,
    ReferenceUnavailable,
)
from backend.images import reference as pictures
from backend.jobs import ids, queries
from backend.jobs.ids import Role
from backend.jobs.models import Job
from backend.resources import Resources
from backend.tasks import lifecycle
from backend.tasks.base import PATIENCE, JobTask
from contract.queues import FETCH_REFERENCES

log = logging.getLogger(__name__)

ATTEMPTS = 4  # at what is away, before the job fails

_OPEN = {"reference": pictures.open_reference, "mask": pictures.open_mask}


@app.task(name=FETCH_REFERENCES, bind=True, base=JobTask, soft_time_limit=360, time_limit=390, **PATIENCE)
def fetch_references(self: JobTask, *, job_id: str, run: int) -> None:
    """Runs before all else, so that a bad reference costs no prompts. What was fetched once, stands."""
    parts = resources.current()
    job = lifecycle.begin(parts, UUID(job_id), run)
    if job is None:
        raise Ignore
    wanted = references.roles(job.input)
    if all(_is_stored(parts, job, role) for role in wanted):
        return
    for role, picture in _prepared(parts, job, _fetched(self, parts, job, wanted)).items():
        parts.storage.put(ids.reference_key(job.id, role), pictures.to_png(picture), "image/png")
    with parts.db.read_scope() as session:
        deleted = queries.get(session, job.id) is None
    if deleted:  # meanwhile, and its objects with it, but for these
        parts.storage.delete(ids.reference_keys(job.id, wanted))
        raise Ignore


def _is_stored(parts: Resources, job: Job, role: Role) -> bool:
    try:
        parts.storage.stat(ids.reference_key(job.id, role))
    except ObjectNotFound:
        return False
    return True


def _fetched(task: JobTask, parts: Resources, job: Job, wanted: list[Role]) -> dict[Role, bytes]:
    try:
        return {role: _fetch(parts, job, role) for role in wanted}
    except ReferenceAway as exc:
        tries = task.request.retries + 1
        if tries >= ATTEMPTS:
            raise
        wait = 2**tries * (0.5 + random.random())  # noqa: S311 - jitter
        log.warning("job %s, attempt %s: %s; again in %.0f s", job.id, tries, exc.detail, wait)
        raise task.retry(exc=exc, countdown=wait, max_retries=ATTEMPTS) from exc


def _fetch(parts: Resources, job: Job, role: Role) -> bytes:
    """The file as it was given. Raises `ReferenceAway`, `ReferenceUnavailable` or `ReferenceRefused`."""
    given: dict[str, Any] = job.input[role]
    try:
        if "image_id" in given:
            return _original(parts, job, UUID(given["image_id"]))
        if references.is_data(given):
            return parts.storage.get(ids.given_key(job.id, role), max_bytes=given["bytes"])
        return parts.downloader.fetch(given["url"])
    except (ReferenceUnavailable, ReferenceRefused) as exc:
        raise _of(role, exc, type(exc)) from exc
    except ObjectNotFound as exc:
        raise ReferenceUnavailable(f"{references.WORDS[role]} was deleted.") from exc
    except ObjectTooLarge as exc:
        raise _of(role, exc, ReferenceRefused) from exc


def _original(parts: Resources, job: Job, image_id: UUID) -> bytes:
    with parts.db.read_scope() as session:
        image = queries.completed_image(session, image_id, job.owner)
    if image is None or image.key is None:
        raise ObjectNotFound
    return parts.storage.get(image.key, max_bytes=parts.settings.max_upload_bytes)


def _prepared(parts: Resources, job: Job, files: dict[Role, bytes]) -> dict[Role, Image.Image]:
    opened = {role: _opened(parts, role, data) for role, data in files.items()}
    if "mask" in opened and not pictures.have_one_shape(opened["reference"], opened["mask"]):
        raise ReferenceRefused("The mask has another shape than the reference image.")
    size = job.input["width"], job.input["height"]
    return {role: pictures.cover(picture, size) for role, picture in opened.items()}


def _opened(parts: Resources, role: Role, data: bytes) -> Image.Image:
    try:
        return _OPEN[role](data, max_pixels=parts.settings.max_image_pixels)
    except ImageUnreadable as exc:
        raise _of(role, exc, ReferenceRefused) from exc


def _of(role: Role, exc: FanfareError, kind: type[FanfareError]) -> FanfareError:
    """The same, said of this role."""
    return kind(f"{references.WORDS[role]} can't be used: {exc.detail}")

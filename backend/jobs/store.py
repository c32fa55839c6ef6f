"""Every legal change of state of jobs and image generations. Each happens under the lock of the job's row.

    pending -> in_progress -> completed | partially_completed | failed | canceled
    failed | partially_completed -> pending (retry: one run more)

A message that comes late, twice or from an earlier run changes nothing: the functions say so by what they
return. None of them commits; none of them sends anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.errors import Conflict, StorageUnavailable
from backend.jobs import events, ids
from backend.jobs.models import ENDED, IdempotencyKey, ImageGeneration, Job, Status
from contract.messages import GeneratedImage, ImageFailure, ImageStarted

ERASED_SOON = timedelta(minutes=1)  # clocks differ, and a transaction takes its time


@dataclass(frozen=True)
class Fault:
    """Why a job or an image failed, as the client sees it."""

    code: str
    message: str
    retryable: bool

    def as_dict(self) -> dict[str, Any]:
        """As it stands in events and answers."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


@dataclass(frozen=True)
class Plan:
    """What one prompt will be made into."""

    prompt: str
    model: str
    seed: int


@dataclass(frozen=True)
class SavedImage:
    """What save_images has made of one original."""

    index: int
    run: int
    bytes: int
    sha256: str
    content_type: str
    width: int
    height: int
    thumbnails: list[dict[str, Any]]  # {"key", "width", "height", "content_type", "bytes"}, smallest first
    blurhash: str
    color: str


def lock(session: Session, job_id: UUID) -> Job | None:
    """The job, locked until the session ends; None if it is gone."""
    query = (
        sa.select(Job)
        .where(Job.id == job_id, Job.deleted_at.is_(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return session.scalar(query)


def _images(session: Session, job: Job) -> list[ImageGeneration]:
    query = (
        sa.select(ImageGeneration)
        .where(ImageGeneration.job_id == job.id)
        .order_by(ImageGeneration.index)
        .execution_options(populate_existing=True)
    )
    return list(session.scalars(query))


def _image(session: Session, job: Job, index: int, run: int) -> ImageGeneration | None:
    query = sa.select(ImageGeneration).where(
        ImageGeneration.job_id == job.id, ImageGeneration.index == index, ImageGeneration.run == run
    )
    return session.scalar(query)


def _job_data(job: Job, fault: Fault | None = None) -> dict[str, Any]:
    return {
        "status": job.status.value,
        "error": fault.as_dict() if fault else None,
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "completed_at": job.completed_at.isoformat() if job.completed_at else None,
    }


def _record_job(
    session: Session, job: Job, event_type: str, now: datetime, fault: Fault | None = None
) -> None:
    events.record(session, job, event_type, _job_data(job, fault), now)


def _record_image(session: Session, job: Job, image: ImageGeneration, event_type: str, now: datetime) -> None:
    error = None
    if image.error_code:
        error = Fault(image.error_code, image.error_message or "", bool(image.error_retryable)).as_dict()
    data = {"index": image.index, "status": image.status.value, "error": error}
    events.record(session, job, event_type, data, now)


# -- the job's way ------------------------------------------------------------------------------------


def reserve(session: Session, job: Job, until: datetime) -> None:
    """A job that is not accepted yet: nobody sees it, and after that the sweep erases it with its objects."""
    job.deleted_at = until
    session.add(job)


def accept(session: Session, job: Job, now: datetime) -> None:
    """A new job, or one that was reserved, with its first event. Raises `StorageUnavailable` where that
    was so long ago that it may be erased already.
    """
    if job.deleted_at is not None and job.deleted_at - now < ERASED_SOON:
        raise StorageUnavailable("It took too long to store its files.")
    job.deleted_at = None
    session.add(job)
    session.flush()
    _record_job(session, job, "job.created", now)


def dispatched(session: Session, job_id: UUID, now: datetime) -> None:
    """The broker has it."""
    session.execute(sa.update(Job).where(Job.id == job_id).values(dispatched_at=now))


def begin(session: Session, job_id: UUID, now: datetime) -> Job | None:
    """A worker has begun with the job. None: there is nothing (more) to do for it."""
    job = lock(session, job_id)
    if job is None or job.status in ENDED:
        return None
    if job.status is Status.PENDING:
        job.status = Status.IN_PROGRESS
        job.started_at = job.started_at or now
        _record_job(session, job, "job.started", now)
    return job


def plan(session: Session, job: Job, plans: Sequence[Plan], now: datetime) -> None:
    """The rows of the job's images. A second plan for the same job is dropped: the first stands."""
    if _images(session, job):
        return
    for index, one in enumerate(plans):
        session.add(
            ImageGeneration(
                id=ids.image_id(job.id, index), job_id=job.id, index=index, run=job.run,
                prompt=one.prompt, model=one.model, seed=one.seed, created_at=now,
                status=Status.PENDING, made_with={}, timings={}, thumbnails=[],
            )
        )  # fmt: skip
    session.flush()
    events.record(session, job, "job.planned", _job_data(job), now)


def to_make(session: Session, job: Job) -> list[ImageGeneration]:
    """The images that are still to be made in this run."""
    return [
        image for image in _images(session, job) if image.status not in ENDED and image.generated_at is None
    ]


def planned(session: Session, job: Job) -> bool:
    """Whether the job's prompts are written."""
    query = sa.select(sa.exists().where(ImageGeneration.job_id == job.id))
    return bool(session.scalar(query))


def image_started(session: Session, message: ImageStarted, now: datetime) -> bool:
    """A node has begun with an image. False: an old story."""
    job = lock(session, message.job_id)
    image = _image(session, job, message.index, message.run) if job and job.status not in ENDED else None
    if job is None or image is None or image.status in ENDED or image.generated_at:
        return False
    image.node, image.attempts = message.node, max(image.attempts, message.attempts)
    job.updated_at = now
    if image.status is Status.PENDING:
        image.status, image.started_at = Status.IN_PROGRESS, message.started_at
        _record_image(session, job, image, "image.started", now)
    return True


def image_generated(session: Session, result: GeneratedImage, now: datetime) -> bool:
    """A node has stored an original: it is visible from now on. The first result wins; False: it had one."""
    job = lock(session, result.job_id)
    image = _image(session, job, result.index, result.run) if job and job.status not in ENDED else None
    if job is None or image is None or image.status in ENDED or image.generated_at:
        return False
    _keep_original(image, result, now)
    _record_image(session, job, image, "image.generated", now)
    return True


def _keep_original(image: ImageGeneration, result: GeneratedImage, now: datetime) -> None:
    image.status, image.generated_at = Status.IN_PROGRESS, now
    image.started_at = image.started_at or now
    image.key, image.content_type = result.key, result.content_type
    image.bytes, image.sha256 = result.bytes, result.sha256
    image.width, image.height, image.seed = result.width, result.height, result.seed
    image.node, image.attempts = result.node, max(image.attempts, result.attempts)
    image.timings = result.timings.model_dump()
    image.made_with = dict(result.made_with)


def image_failed(session: Session, failure: ImageFailure, now: datetime) -> bool:
    """An image could not be made. False: an old story."""
    job = lock(session, failure.job_id)
    image = _image(session, job, failure.index, failure.run) if job and job.status not in ENDED else None
    if job is None or image is None or image.status in ENDED or image.generated_at:
        return False
    image.node, image.attempts = failure.node, max(image.attempts, failure.attempts)
    fail_image(session, job, image, Fault(failure.code.value, failure.message, failure.retryable), now)
    return True


def fail_image(session: Session, job: Job, image: ImageGeneration, fault: Fault, now: datetime) -> None:
    """Sets one image of a locked job to failed."""
    image.status, image.completed_at = Status.FAILED, now
    image.error_code, image.error_message = fault.code, fault.message
    image.error_retryable = fault.retryable
    _record_image(session, job, image, "image.failed", now)


def generated(session: Session, job: Job) -> list[ImageGeneration]:
    """Images whose original is stored and whose thumbnails are not made yet."""
    return [image for image in _images(session, job) if image.generated_at and image.status not in ENDED]


def save(
    session: Session,
    job_id: UUID,
    run: int,
    saved: Iterable[SavedImage],
    faults: dict[int, Fault],
    now: datetime,
    kept_for: timedelta | None = None,
) -> Job | None:
    """Writes all rows of the batch and the job's end. None: an old story.

    An image that is neither in `saved` nor in `faults`, and has not ended either, fails as `worker_lost`.
    """
    job = lock(session, job_id)
    if job is None or job.status in ENDED or job.run != run:
        return None
    by_index = {image.index: image for image in saved}
    for image in _images(session, job):
        if image.status in ENDED:
            continue
        done = by_index.get(image.index)
        if done:
            _complete_image(session, job, image, done, now)
        else:
            lost = Fault(
                "worker_lost", "The image was lost on its way. Retry makes it again.", retryable=True
            )
            fail_image(session, job, image, faults.get(image.index, lost), now)
    _end(session, job, now, kept_for)
    return job


def _complete_image(
    session: Session, job: Job, image: ImageGeneration, done: SavedImage, now: datetime
) -> None:
    image.status, image.completed_at = Status.COMPLETED, now
    image.bytes, image.sha256, image.content_type = done.bytes, done.sha256, done.content_type
    image.width, image.height = done.width, done.height
    image.thumbnails, image.blurhash, image.color = done.thumbnails, done.blurhash, done.color
    image.error_code = image.error_message = image.error_retryable = None
    _record_image(session, job, image, "image.completed", now)


def _end(session: Session, job: Job, now: datetime, kept_for: timedelta | None) -> None:
    statuses = {image.status for image in _images(session, job)}
    if statuses == {Status.COMPLETED}:
        job.status = Status.COMPLETED
    elif Status.COMPLETED in statuses:
        job.status = Status.PARTIALLY_COMPLETED
    else:
        job.status = Status.FAILED
    _date(job, now, kept_for)
    fault = None
    if job.status is Status.FAILED:
        fault = _fault_of_all(_images(session, job))
        job.error_code, job.error_message, job.error_retryable = fault.code, fault.message, fault.retryable
    _record_job(session, job, events.ENDINGS[job.status], now, fault)


def _date(job: Job, now: datetime, kept_for: timedelta | None) -> None:
    job.completed_at = now
    job.expires_at = now + kept_for if kept_for else None


def _fault_of_all(images: Sequence[ImageGeneration]) -> Fault:
    """One fault for a job none of whose images was made: theirs, if they agree."""
    codes = {image.error_code for image in images}
    retryable = any(image.error_retryable for image in images)
    if len(codes) == 1 and images:
        return Fault(images[0].error_code or "internal", images[0].error_message or "", retryable)
    return Fault("all_images_failed", "None of the images could be made; each says why.", retryable)


def fail(
    session: Session, job_id: UUID, fault: Fault, now: datetime, kept_for: timedelta | None = None
) -> bool:
    """Ends the job as failed, or as partially completed where images are saved. False: it had ended."""
    job = lock(session, job_id)
    if job is None or job.status in ENDED:
        return False
    images = _images(session, job)
    for image in images:
        if image.status not in ENDED:
            fail_image(session, job, image, fault, now)
    kept = any(image.status is Status.COMPLETED for image in images)
    job.status = Status.PARTIALLY_COMPLETED if kept else Status.FAILED
    _date(job, now, kept_for)
    job.error_code, job.error_message, job.error_retryable = fault.code, fault.message, fault.retryable
    _record_job(session, job, events.ENDINGS[job.status], now, fault)
    return True


# -- what clients ask for -----------------------------------------------------------------------------


def cancel(session: Session, job: Job, now: datetime, kept_for: timedelta | None = None) -> bool:
    """Ends a locked job as canceled; originals that are stored stay. False: it had ended already."""
    if job.status in ENDED:
        return False
    for image in _images(session, job):
        if image.status in ENDED:
            continue
        image.completed_at = now
        image.status = Status.COMPLETED if image.generated_at else Status.CANCELED
        _record_image(session, job, image, f"image.{image.status.value}", now)
    job.status = Status.CANCELED
    _date(job, now, kept_for)
    _record_job(session, job, "job.canceled", now)
    return True


def retry(session: Session, job: Job, now: datetime, deadline: timedelta) -> None:
    """One run more for what failed of a locked job. Raises `Conflict` if nothing failed."""
    if job.status not in (Status.FAILED, Status.PARTIALLY_COMPLETED):
        raise Conflict(f"Nothing failed: the job is {job.status.value}.")
    job.run += 1
    for image in _images(session, job):
        if image.status is Status.FAILED:
            _reset(image, job.run)
    job.status, job.completed_at, job.dispatched_at = Status.PENDING, None, None
    job.moved_forward_at = job.cancel_at = job.expires_at = None
    job.error_code = job.error_message = job.error_retryable = None
    job.deadline_at = now + deadline
    _record_job(session, job, "job.retried", now)


def _reset(image: ImageGeneration, run: int) -> None:
    image.status, image.run, image.attempts = Status.PENDING, run, 0
    image.error_code = image.error_message = image.error_retryable = None
    image.started_at = image.generated_at = image.completed_at = None
    image.key = image.sha256 = image.bytes = image.content_type = image.node = None
    image.timings, image.made_with = {}, {}


def renew(session: Session, job: Job, indexes: Iterable[int], now: datetime) -> list[ImageGeneration]:
    """Sets images of this run of a locked job back to pending: they are made anew, in the same run."""
    wanted = set(indexes)
    again = [image for image in _images(session, job) if image.index in wanted and image.status not in ENDED]
    for image in again:
        _reset(image, job.run)
    job.updated_at = now
    return again


# -- how it goes --------------------------------------------------------------------------------------


def set_expiry(
    session: Session, job_id: UUID, kept_for: timedelta | None, notice: timedelta, now: datetime
) -> None:
    """Dates a job that has ended without a date, not sooner than after a notice; None: takes it away."""
    job = lock(session, job_id)
    if job is None or job.status not in ENDED or job.completed_at is None:
        return
    if kept_for is None:
        job.expires_at = None
    elif job.expires_at is None:
        job.expires_at = max(job.completed_at + kept_for, now + min(kept_for, notice))


def expire(session: Session, job_ids: Sequence[UUID], now: datetime) -> int:
    """Marks those of them as deleted whose time has come, and has not been put off meanwhile. How many."""
    query = (
        sa.update(Job)
        .where(Job.id.in_(job_ids), Job.expires_at <= now, Job.deleted_at.is_(None), Job.status.in_(ENDED))
        .values(deleted_at=now)
        .returning(Job.id)
    )
    return len(session.scalars(query, execution_options={"synchronize_session": False}).all())


def postpone_erasing(session: Session, job_id: UUID, until: datetime) -> None:
    """What could not be erased is tried again then."""
    session.execute(sa.update(Job).where(Job.id == job_id).values(deleted_at=until))


def erase(session: Session, job_id: UUID) -> None:
    """Deletes the job with all its rows."""
    session.execute(sa.delete(IdempotencyKey).where(IdempotencyKey.job_id == job_id))
    session.execute(sa.delete(Job).where(Job.id == job_id))

"""Every legal change of state of jobs and image generations. Each happens under the lock of the job's row.

    pending -> in_progress -> completed | partially_completed | failed | canceled
    failed | partially_completed -> pending (retry: one run more)

A message that comes late, twice or from an earlier run changes nothing: the functions say so by what they
return. None of them commits; none of them sends anything.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from backend.errors import Conflict, StorageUnavailable
from backend.jobs import endpoints, events, ids, items
from backend.jobs.faults import Fault
from backend.jobs.models import ENDED, IdempotencyKey, ImageGeneration, Job, Status
from contract.messages import FailureCode, GeneratedImage, ImageFailure, ImageStarted

Report = ImageStarted | GeneratedImage | ImageFailure

LEASE = timedelta(seconds=20)  # an image in hand counts as lost if nobody has said so for so long
UPLOAD_ATTEMPTS = 3  # how often an image whose upload URL had expired is made, in all
LONG_WAIT = timedelta(minutes=10)  # in which no upload URL that is of any use expires
MOST_LOSSES = 10  # beside what nodes count: that may be lost with the result store
ERASED_SOON = timedelta(minutes=1)  # clocks differ, and a transaction takes its time


# Built once: that takes longer than to ask them.
_LOCKING = (
    sa.select(Job, endpoints.HAS_LISTENERS)
    .where(Job.deleted_at.is_(None))
    .options(selectinload(Job.images))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_LOCK = _LOCKING.where(Job.id == sa.bindparam("job_id"))
_LOCK_ALL = _LOCKING.where(Job.id.in_(sa.bindparam("job_ids", expanding=True))).order_by(Job.id)

LOST_TOO_OFTEN = Fault(
    "worker_lost", "The nodes that worked on this image were lost each time.", retryable=True
)
LOST = Fault("worker_lost", "The image was lost on its way. Retry makes it again.", retryable=True)


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
    """The job with its images, locked until the session ends; None if it is gone. Its items aren't read."""
    return next(iter(_locked(session, _LOCK, {"job_id": job_id})), None)


def lock_all(session: Session, job_ids: Iterable[UUID]) -> list[Job]:
    """Those of the jobs that are there, locked in the order of their ids: so nobody waits in a circle."""
    return _locked(session, _LOCK_ALL, {"job_ids": list(job_ids)})


def _locked(session: Session, query: sa.Select[Job, bool], values: dict[str, Any]) -> list[Job]:
    jobs = []
    for job, has_listeners in session.execute(query, values):
        if not has_listeners:
            endpoints.nobody_listens(session, job.owner)
        jobs.append(job)
    return jobs


def _job_data(job: Job, fault: Fault | None = None) -> dict[str, Any]:
    return {
        "status": job.status.value,
        "error": fault.as_dict() if fault else None,
        "started_at": _as_text(job.started_at),
        "completed_at": _as_text(job.completed_at),
    }


def _as_text(moment: datetime | None) -> str | None:
    """As the views write it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


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
    _record_job(session, job, "job.created", now)


def dispatching(job: Job, now: datetime) -> None:
    """It is about to be given to the broker."""
    job.dispatched_at, job.sends = now, job.sends + 1


def undispatched(session: Session, job_id: UUID) -> None:
    """The broker did not take it."""
    session.execute(sa.update(Job).where(Job.id == job_id).values(dispatched_at=None))


def begin(session: Session, job_id: UUID, now: datetime, run: int | None = None) -> Job | None:
    """A worker has begun with the job (in this run). None: there is nothing (more) to do for it.

    The job is locked.
    """
    job = lock(session, job_id)
    if job is None or job.status in ENDED or run not in (None, job.run):
        return None
    if job.status is Status.PENDING:
        job.status = Status.IN_PROGRESS
        job.started_at = job.started_at or now
        _record_job(session, job, "job.started", now)
    return job


def claim(job: Job, who: str, until: datetime, now: datetime) -> bool:
    """Takes what is costly to do of a locked job in hand. False: another task has it in hand."""
    if not is_free(job, who, now):
        return False
    job.claimed_by, job.claimed_until = who, until
    return True


def is_free(job: Job, who: str, now: datetime) -> bool:
    """Whether nobody else has in hand what is costly to do of a job."""
    return job.claimed_by in (None, who) or job.claimed_until is None or job.claimed_until <= now


def renew_claim(session: Session, job_id: UUID, who: str, until: datetime) -> None:
    """Who has it in hand goes on, unless somebody else has taken it. No claim is made shorter."""
    query = sa.update(Job).where(Job.id == job_id, Job.claimed_by == who, Job.claimed_until < until)
    session.execute(query.values(claimed_until=until).execution_options(synchronize_session=False))


def plan(session: Session, job: Job, plans: Sequence[Plan], now: datetime) -> None:
    """The rows of the job's images. A second plan for the same job is dropped: the first stands."""
    job.claimed_by = job.claimed_until = None
    if job.images:
        return
    for index, one in enumerate(plans):
        job.images.append(
            ImageGeneration(
                id=ids.image_id(job.id, index), job_id=job.id, index=index, run=job.run,
                prompt=one.prompt, model=one.model, seed=one.seed, created_at=now,
                status=Status.PENDING, made_with={}, timings={}, thumbnails=[],
                sends=0, losses=0, expired_uploads=0, attempts=0,
            )
        )  # fmt: skip
    events.record(session, job, "job.planned", _job_data(job), now)


def end_items(session: Session, job: Job, now: datetime, kept_for: timedelta | None = None) -> bool:
    """The end of a locked job that is open and takes files, if all of them have ended."""
    session.flush()
    if items.any_open(session, job.id):
        return False
    job.status = status = items.status_of_all(items.counts(session, job.id))
    _date(job, now, kept_for)
    fault = items.fault_of_all(session, job.id) if status is Status.FAILED else None
    if fault:
        job.error_code, job.error_message, job.error_retryable = fault.code, fault.message, fault.retryable
    _record_job(session, job, events.ENDINGS[status], now, fault)
    return True


def hold(session: Session, job: Job, now: datetime) -> None:
    """The prompts of a locked job are written: no image is made before its client says so."""
    job.held_at = now
    _record_job(session, job, "job.awaiting_review", now)


def go_on(
    session: Session, job: Job, plans: Sequence[Plan] | None, now: datetime, deadline: timedelta
) -> None:
    """Its client has said so, of a locked job that is held; `plans`: with other prompts in place of those
    that were written. It has all its time from now on.
    """
    job.held_at, job.deadline_at = None, now + deadline
    job.updated_at = now
    if plans is not None:
        session.execute(sa.delete(ImageGeneration).where(ImageGeneration.job_id == job.id))
        session.refresh(job, ["images"])
        job.total = len(plans)
        plan(session, job, plans, now)


def unmade(job: Job) -> list[ImageGeneration]:
    """The images that are still to be made in this run."""
    return [image for image in job.images if image.status not in ENDED and image.generated_at is None]


def is_made(job: Job) -> bool:
    """Whether all that is left to do for an open job is to save its images."""
    return job.status not in ENDED and bool(job.images) and not unmade(job)


def unsent(job: Job) -> list[ImageGeneration]:
    """Images that are to be made and that the broker was not given yet; none while the job is held."""
    return [] if job.held_at else [image for image in unmade(job) if image.queued_at is None]


def not_sent(session: Session, image_ids: Collection[UUID]) -> None:
    """The broker did not take these images."""
    session.execute(
        sa.update(ImageGeneration)
        .where(ImageGeneration.id.in_(image_ids), ImageGeneration.generated_at.is_(None))
        .values(queued_at=None)
        .execution_options(synchronize_session=False)
    )


def take(session: Session, job: Job, reports: Iterable[Report], now: datetime) -> list[Report]:
    """Writes reports of nodes to the rows of a locked job; those that were news.

    The first result of an image wins. An original that is stored is visible from now on.
    """
    if job.status in ENDED:
        return []
    images = {(image.index, image.run): image for image in job.images}
    return [
        report
        for report in reports
        if (image := images.get((report.index, report.run))) and _take(session, job, image, report, now)
    ]


def _take(session: Session, job: Job, image: ImageGeneration, report: Report, now: datetime) -> bool:
    if image.status in ENDED or image.generated_at:
        return False
    image.node, image.attempts = report.node, max(image.attempts, report.attempts)
    in_vain = not _only_waited(image, report, now)
    if _has_expired(report) and image.expired_uploads + in_vain < UPLOAD_ATTEMPTS:
        image.expired_uploads += in_vain
        image.queued_at = None
        _requeue(session, job, image, now)
    elif isinstance(report, GeneratedImage):
        _keep_original(image, report, now)
        _record_image(session, job, image, "image.generated", now)
    elif isinstance(report, ImageFailure):
        fault = Fault(report.code.value, report.message, report.retryable)
        fail_image(session, job, image, fault, now)
    else:
        job.updated_at, image.leased_until = now, now + LEASE
        if image.status is Status.PENDING:
            image.status, image.started_at = Status.IN_PROGRESS, report.started_at
            _record_image(session, job, image, "image.started", now)
    return True


def _has_expired(report: Report) -> bool:
    """An expired upload URL is not the image's end: it is signed anew, and the image made again."""
    return isinstance(report, ImageFailure) and report.code is FailureCode.UPLOAD_EXPIRED


def _only_waited(image: ImageGeneration, report: Report, now: datetime) -> bool:
    """Whether nobody had begun with it when its URL had expired: the queue is longer than URLs live.

    That may go on until the job's deadline: it costs a signature each time, and no picture.
    """
    waited = now - image.queued_at if image.queued_at else timedelta(0)
    return report.attempts == 0 and waited >= LONG_WAIT


def _keep_original(image: ImageGeneration, result: GeneratedImage, now: datetime) -> None:
    image.status, image.generated_at = Status.IN_PROGRESS, now
    image.started_at = image.started_at or now
    image.key, image.content_type = result.key, result.content_type
    image.bytes, image.sha256 = result.bytes, result.sha256
    image.width, image.height, image.seed = result.width, result.height, result.seed
    image.timings = result.timings.model_dump()
    image.made_with = dict(result.made_with)


def fail_image(session: Session, job: Job, image: ImageGeneration, fault: Fault, now: datetime) -> None:
    """Sets one image of a locked job to failed."""
    image.status, image.completed_at = Status.FAILED, now
    image.error_code, image.error_message = fault.code, fault.message
    image.error_retryable = fault.retryable
    _record_image(session, job, image, "image.failed", now)


def generated(job: Job) -> list[ImageGeneration]:
    """Images whose original is stored and whose thumbnails are not made yet."""
    return [image for image in job.images if image.generated_at and image.status not in ENDED]


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
    for image in job.images:
        if image.status in ENDED:
            continue
        done = by_index.get(image.index)
        if done:
            _complete_image(session, job, image, done, now)
        else:
            fail_image(session, job, image, faults.get(image.index, LOST), now)
    _end(session, job, now, kept_for)
    return job


def take_step(session: Session, job: Job, step: str, output: dict[str, Any], now: datetime) -> bool:
    """What a step of a locked job came to. False: it is there already, and the first stands."""
    known = job.task_context or {}
    if step in job.steps_done:
        return False
    job.claimed_by = job.claimed_until = None
    job.dispatched_at, job.sends = now, 1  # the next one is, and is waited for as patiently as the first
    job.task_context = known | {step: {"output": output, "completed_at": now.isoformat()}}
    events.record(session, job, "job.step_completed", _job_data(job) | {"step": step}, now)
    return True


def lose_step(job: Job, step: str) -> int:
    """A worker has died over a step of a locked job. How many have, in this run."""
    known = job.task_context or {}
    losses: int = (known.get(step) or {}).get("losses", 0) + 1
    job.task_context = known | {step: {"losses": losses}}
    return losses


def complete(
    session: Session, job: Job, output: dict[str, Any], now: datetime, kept_for: timedelta | None = None
) -> None:
    """The end of a locked job that is open and makes no images."""
    job.status, job.output = Status.COMPLETED, output
    _date(job, now, kept_for)
    _record_job(session, job, events.ENDINGS[job.status], now)


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
    statuses = {image.status for image in job.images}
    if statuses == {Status.COMPLETED}:
        job.status = Status.COMPLETED
    elif Status.COMPLETED in statuses:
        job.status = Status.PARTIALLY_COMPLETED
    else:
        job.status = Status.FAILED
    _date(job, now, kept_for)
    fault = None
    if job.status is Status.FAILED:
        fault = _fault_of_all(job.images)
        job.error_code, job.error_message, job.error_retryable = fault.code, fault.message, fault.retryable
    _record_job(session, job, events.ENDINGS[job.status], now, fault)


def _date(job: Job, now: datetime, kept_for: timedelta | None) -> None:
    job.completed_at, job.held_at = now, None
    job.expires_at = now + kept_for if kept_for else None


def _fault_of_all(images: Sequence[ImageGeneration]) -> Fault:
    """One fault for a job none of whose images was made: theirs, if they agree."""
    codes = {image.error_code for image in images}
    retryable = any(image.error_retryable for image in images)
    if len(codes) == 1 and images:
        return Fault(images[0].error_code or "internal", images[0].error_message or "", retryable)
    return Fault("all_images_failed", "None of the images could be made; each says why.", retryable)


def fail(
    session: Session,
    job_id: UUID,
    fault: Fault,
    now: datetime,
    kept_for: timedelta | None = None,
    run: int | None = None,
) -> bool:
    """Ends the job (in this run) as failed, or as partially completed where images are saved. False: it had
    ended, or this is an old story.
    """
    job = lock(session, job_id)
    if job is None or job.status in ENDED or run not in (None, job.run):
        return False
    images = job.images
    for image in images:
        if image.status not in ENDED:
            fail_image(session, job, image, fault, now)
    kept = any(image.status is Status.COMPLETED for image in images)
    if job.takes_files:
        items.end_open(session, job, Status.FAILED, fault, now)
        kept = bool(items.counts(session, job.id).get(Status.COMPLETED))
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
    for image in job.images:
        if image.status in ENDED:
            continue
        image.completed_at = now
        image.status = Status.COMPLETED if image.generated_at else Status.CANCELED
        _record_image(session, job, image, f"image.{image.status.value}", now)
    if job.takes_files:
        items.end_open(session, job, Status.CANCELED, None, now)
    job.status = Status.CANCELED
    _date(job, now, kept_for)
    _record_job(session, job, "job.canceled", now)
    return True


def retry(session: Session, job: Job, now: datetime, deadline: timedelta) -> None:
    """One run more for what failed of a locked job; prompts that nobody has reviewed are still to be. Raises
    `Conflict` if nothing failed.
    """
    if job.status not in (Status.FAILED, Status.PARTIALLY_COMPLETED):
        raise Conflict(f"Nothing failed: the job is {job.status.value}.")
    job.run += 1
    is_unreviewed = job.input.get("review") and job.images and not any(image.sends for image in job.images)
    for image in job.images:
        if image.status is Status.FAILED:
            _reset(image, job.run)
    if job.takes_files:
        items.reset_failed(session, job)
    job.status, job.completed_at, job.dispatched_at = Status.PENDING, None, None
    job.moved_forward_at = job.cancel_at = job.expires_at = job.claimed_until = None
    job.sends = 0
    if job.task_context is not None:
        job.task_context = dict.fromkeys(job.task_context) | job.steps_done
    job.error_code = job.error_message = job.error_retryable = None
    job.deadline_at = now + deadline
    _record_job(session, job, "job.retried", now)
    if is_unreviewed:
        hold(session, job, now)


def _reset(image: ImageGeneration, run: int) -> None:
    image.status, image.run, image.attempts = Status.PENDING, run, 0
    image.error_code = image.error_message = image.error_retryable = None
    image.started_at = image.generated_at = image.completed_at = None
    image.queued_at = image.leased_until = image.band = None
    image.sends = image.losses = image.expired_uploads = 0
    image.key = image.sha256 = image.bytes = image.content_type = image.node = None
    image.timings, image.made_with = {}, {}


# -- what is sent to nodes ----------------------------------------------------------------------------


def sending(images: Iterable[ImageGeneration], now: datetime) -> None:
    """These images of a locked job are about to be given to the broker, perhaps once more."""
    for image in images:
        image.queued_at, image.sends = now, image.sends + 1


def lose(
    session: Session, job: Job, images: Iterable[ImageGeneration], now: datetime
) -> list[ImageGeneration]:
    """The nodes that had these images of a locked job in hand are gone; those that are worth another try."""
    again = []
    for image in images:
        image.losses += 1
        if image.losses < MOST_LOSSES:
            _requeue(session, job, image, now)
            again.append(image)
        else:
            fail_image(session, job, image, LOST_TOO_OFTEN, now)
    return again


def _requeue(session: Session, job: Job, image: ImageGeneration, now: datetime) -> None:
    """It was begun in vain, and waits again."""
    image.status, image.started_at, image.leased_until = Status.PENDING, None, None
    _record_image(session, job, image, "image.requeued", now)


def renew_leases(session: Session, image_ids: Collection[UUID] | None, now: datetime) -> None:
    """These images are in hand of nodes that live; None: nobody can say, so all are taken to be."""
    renewed = sa.update(ImageGeneration).where(
        ImageGeneration.status == Status.IN_PROGRESS,
        ImageGeneration.generated_at.is_(None),
        ImageGeneration.leased_until < now + LEASE * 2 / 3,
    )
    if image_ids is not None:
        renewed = renewed.where(ImageGeneration.id.in_(image_ids))
    session.execute(renewed.values(leased_until=now + LEASE).execution_options(synchronize_session=False))


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

"""Finds what was lost on its way, and sends it again.

The broker only carries, so it is asked for nothing but how much waits. What is lost, the database tells:
- an image that a node had in hand, when no live node says any more that it has: its lease has ended;
- an image that waits, when nothing waits in its queue, or others have passed it that were sent long after;
- a step of a job, when nothing was heard of it for long, and nothing waits in the queue of its step.
To send something twice costs a look at what is there already. So what is in doubt is sent again, but each
time only after twice as long.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from functools import cache
from uuid import UUID

from backend import references, submit
from backend.errors import ReferenceUnavailable
from backend.jobs import losses, queries, store
from backend.jobs.models import ENDED, ImageGeneration, Job, Status
from backend.queue_depths import queue_depths
from backend.resources import Resources
from backend.steps import pipeline_of
from backend.tasks import gpu, lifecycle, reports
from backend.tasks.base import fault_of
from backend.tasks.references import ATTEMPTS as FETCH_ATTEMPTS
from backend.views import now
from contract.queues import DEFAULT_QUEUE, LLM_QUEUE, MEDIA_QUEUE, gpu_queue

log = logging.getLogger(__name__)

PASSED_BY = timedelta(seconds=30)  # others that were sent so much later have been begun
REPORTS_TAKE = timedelta(minutes=5)  # so long a report is believed to wait in a queue that isn't empty
MOST_DOUBLINGS = 10  # of the patience with one job
NOT_SO_LONG = 10  # times its patience: the same of a step of a job
SAVING_TAKES = 4  # times the patience with others: the step that makes thumbnails takes its time

Waiting = Callable[[str], int]


def rescue(parts: Resources) -> None:
    """One round. Raises `BrokerUnavailable`."""

    @cache
    def waiting(queue: str) -> int:
        return queue_depths(parts.celery, [queue])[queue]

    snapshot = parts.nodes.snapshot()
    in_hand = {image_id for node in snapshot.nodes for image_id in node.in_hand}
    with parts.db.session_scope() as session:
        store.renew_leases(session, in_hand if snapshot.reachable else None, now())
    if snapshot.reachable:
        _send_images_again(parts, in_hand, waiting)
    _send_jobs_again(parts, waiting)


# -- images -------------------------------------------------------------------------------------------


def _send_images_again(parts: Resources, in_hand: Collection[UUID], waiting: Waiting) -> None:
    with parts.db.read_scope() as session:
        reported = REPORTS_TAKE if waiting(DEFAULT_QUEUE) else timedelta(0)
        begun = losses.without_lease(session, now() - reported)
        waits = losses.waiting_for_long(session, now(), _patience(parts))
        passed = losses.passed(session, {image.model for image in waits}, now(), PASSED_BY)
    lost = [
        image
        for image in waits
        if image.id not in in_hand and (passed(image) or not waiting(gpu_queue(image.model)))
    ]
    for job_id, images in _by_job([*begun, *lost]).items():
        _send_again(parts, job_id, images)


def _by_job(images: Iterable[ImageGeneration]) -> dict[UUID, set[UUID]]:
    found: dict[UUID, set[UUID]] = defaultdict(set)
    for image in images:
        found[image.job_id].add(image.id)
    return found


def _send_again(parts: Resources, job_id: UUID, lost: Collection[UUID]) -> None:
    """What was reported meanwhile is left alone."""
    with parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        if job is None or job.status in ENDED:
            return
        images = [image for image in store.unmade(job) if image.id in lost]
        begun = [image for image in images if image.status is Status.IN_PROGRESS]
        again = [image for image in images if image not in begun]
        again += store.lose(session, job, begun, now())
        store.sending(again, now())
    log.warning("job %s: %d images were lost on their way, and are sent again", job_id, len(again))
    _or_fail(job_id, lambda: gpu.send(parts, job, again))
    if store.is_made(job):
        reports.send_to_save(job)


def _or_fail(job_id: UUID, send: Callable[[], object]) -> None:
    """A job whose images have nothing to start from any more can't be rescued."""
    try:
        send()
    except ReferenceUnavailable as exc:
        lifecycle.fail(job_id, fault_of(exc))


# -- jobs ---------------------------------------------------------------------------------------------


def _send_jobs_again(parts: Resources, waiting: Waiting) -> None:
    with parts.db.read_scope() as session:
        silent = queries.silent(session, now() - _patience(parts))
    for job_id in silent:
        with parts.db.read_scope() as session:
            job = queries.get(session, job_id)
        if job and job.status not in ENDED and _is_stuck(parts, job, waiting):
            _send_job_again(parts, job)


def _is_stuck(parts: Resources, job: Job, waiting: Waiting) -> bool:
    """Whether its next step, which is not an image, is late."""
    if job.claimed_until and job.claimed_until > now():
        return False  # its prompts are being written, or its step is done
    silent_for = now() - max(at for at in (job.updated_at, job.dispatched_at) if at)
    patience = _patience_with(parts, job)
    if silent_for < patience:
        return False
    return silent_for > patience * NOT_SO_LONG or not waiting(_queue_of_next_step(job))


def _patience_with(parts: Resources, job: Job) -> timedelta:
    patience = _patience(parts) * (1 << min(max(job.sends - 1, 0), MOST_DOUBLINGS))
    if store.is_made(job):
        return patience * SAVING_TAKES
    if not job.images and (roles := references.roles(job.input)):
        patience += timedelta(seconds=parts.settings.reference_timeout_s * FETCH_ATTEMPTS * len(roles))
    return patience


def _queue_of_next_step(job: Job) -> str:
    if job.takes_files:
        return MEDIA_QUEUE
    if pipeline := pipeline_of(job):
        step = pipeline.next_step(job)
        return step.queue if step else DEFAULT_QUEUE
    if not job.images:
        return LLM_QUEUE
    return MEDIA_QUEUE if store.is_made(job) else DEFAULT_QUEUE


def _send_job_again(parts: Resources, job: Job) -> None:
    if job.images and not store.is_made(job):
        if sent := _released(parts, job.id):
            log.warning("job %s: %d images were never sent: sent now", job.id, sent)
        return
    log.warning("job %s (%s) was lost on its way: dispatched again", job.id, job.status.value)
    submit.dispatch(parts, job.id)


def _released(parts: Resources, job_id: UUID) -> int:
    sent: list[int] = []
    _or_fail(job_id, lambda: sent.append(gpu.release(parts, job_id)))
    return sum(sent)


def _patience(parts: Resources) -> timedelta:
    return timedelta(seconds=parts.settings.redispatch_after_s)

"""The use case: validate -> persist -> commit -> dispatch. And the others by which a client steers a job."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend import retention, views
from backend.celery_app import BROKER_ERRORS
from backend.errors import (
    BrokerUnavailable,
    Conflict,
    DatabaseUnavailable,
    FieldError,
    IdempotencyConflict,
    IdempotencyInFlight,
    InvalidRequest,
    NotFound,
    StorageError,
    TargetRefused,
)
from backend.jobs import admission, fairness, ids, items, queries, store
from backend.jobs.models import ENDED, IdempotencyKey, Job, Status
from backend.pipelines import PIPELINES
from backend.pipelines.base import JobRequest, Pipeline, Prepared
from backend.resources import Resources
from backend.tasks import lifecycle, notify
from backend.tasks.prompts import plans_of
from backend.views import now
from contract.queues import priority_of

log = logging.getLogger(__name__)

ACCEPTED_WITHIN = timedelta(minutes=15)  # much longer than files take to be stored
STORED_AT_ONCE = 4  # files of a request
IN_FLIGHT_AFTER_MS = 2000  # how long a request waits for another one with its idempotency key

Answer = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """What the client is answered."""

    job_id: UUID
    answer: Answer
    replayed: bool  # the first answer to this idempotency key, again


def submit(
    resources: Resources,
    pipeline: Pipeline,
    request: JobRequest,
    *,
    owner: str,
    idempotency_key: str | None,
    cancel_after_s: int | None = None,
    answer: Callable[[Job], Answer],
) -> Submission:
    """Accepts a job. It is committed when this returns, and from then on it is not lost.

    Raises `InvalidRequest`, `IdempotencyConflict`, `IdempotencyInFlight`, `QuotaReached`, `QueueFull`,
    `DatabaseUnavailable` or, for files that came with it, `StorageUnavailable`; a broker that is away is no
    reason to raise: the sweep dispatches the job when it is back.
    """
    fingerprint = _fingerprint(pipeline, request)
    if idempotency_key and (known := _replay(resources, owner, idempotency_key, fingerprint)):
        return known
    _check_webhook(resources, request)
    prepared = pipeline.prepare(request, resources, owner=owner)
    job = _new_job(resources, pipeline.name, request, prepared, owner)
    if cancel_after_s is not None:
        job.cancel_at = job.created_at + timedelta(seconds=cancel_after_s)
    if prepared.files or prepared.starts or prepared.uploads:
        _store_files(resources, job, prepared)
    if prepared.held:
        _sign_uploads(resources, job)
    try:
        with resources.db.session_scope() as session:
            admission.admit(session, owner, job.total, _limits(resources))
            if idempotency_key:
                queries.wait_for_locks(session, IN_FLIGHT_AFTER_MS)
            band = _dispatching(session, job)  # before it is in the session: so it is written once
            store.accept(session, job, now())
            if prepared.plans:
                store.plan(session, job, prepared.plans, now())
            if prepared.sources:
                items.plan(session, job, prepared.sources, now())
            first = answer(job)
            if idempotency_key:
                session.add(
                    IdempotencyKey(
                        owner=owner, key=idempotency_key, fingerprint=fingerprint, job_id=job.id,
                        response=first, created_at=now(),
                    )
                )  # fmt: skip
    except IntegrityError:  # another request with this key was faster
        known = _replay(resources, owner, idempotency_key or "", fingerprint)
        if known is None:
            raise
        return known
    except DatabaseUnavailable as exc:
        if idempotency_key and queries.is_lock_timeout(exc.__cause__):
            raise IdempotencyInFlight from exc
        raise
    if prepared.held:
        notify.kick(resources, job)
    else:
        _publish_or_leave(resources, job, band)
    return Submission(job.id, first, replayed=False)


def _limits(resources: Resources) -> admission.Limits:
    settings = resources.settings
    return admission.Limits(per_owner=settings.max_open_images_per_owner, in_all=settings.max_open_images)


def _fingerprint(pipeline: Pipeline, request: JobRequest) -> str:
    text = json.dumps([pipeline.name, request.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _replay(resources: Resources, owner: str, key: str, fingerprint: str) -> Submission | None:
    with resources.db.read_scope() as session:
        known = queries.idempotency_key(session, owner, key)
    if known is None:
        return None
    if known.fingerprint != fingerprint:
        raise IdempotencyConflict
    return Submission(known.job_id, known.response, replayed=True)


def _check_webhook(resources: Resources, request: JobRequest) -> None:
    if request.webhook is None:
        return
    try:
        resources.notifier.check_target(request.webhook.url)
    except TargetRefused as exc:
        raise InvalidRequest(
            "The webhook's URL can't be used.", errors=(FieldError("#/webhook/url", exc.detail),)
        ) from exc


def _new_job(resources: Resources, pipeline: str, request: JobRequest, prepared: Prepared, owner: str) -> Job:
    created = now()
    # None would be stored as the null of JSON
    steps = {"task_context": dict.fromkeys(prepared.steps)} if prepared.steps else {}
    return Job(
        id=ids.new_job_id(),
        owner=owner,
        pipeline=pipeline,
        status=Status.PENDING,
        input=prepared.input | {"priority": request.priority},
        client_metadata=request.metadata,
        webhook=request.webhook.model_dump(mode="json") if request.webhook else None,
        total=prepared.total,
        takes_files=bool(prepared.sources),
        held_at=created if prepared.held else None,
        run=1,
        sends=0,
        last_event=0,
        created_at=created,
        updated_at=created,
        deadline_at=created + timedelta(seconds=resources.settings.job_deadline_s),
        images=[],  # known, so that nobody looks for them
        **steps,
    )


def _store_files(resources: Resources, job: Job, prepared: Prepared) -> None:
    """Stores what images are made of. If it is never accepted, the sweep erases it all."""
    with resources.db.session_scope() as session:
        store.reserve(session, job, now() + ACCEPTED_WITHIN)
    for role, data in prepared.files.items():
        resources.storage.put(ids.given_key(job.id, role), data, "application/octet-stream")
    for role, data in prepared.starts.items():
        resources.storage.put(ids.reference_key(job.id, role), data, "image/png")
    with ThreadPoolExecutor(STORED_AT_ONCE, thread_name_prefix="uploads") as pool:
        for _ in pool.map(lambda one: _store_upload(resources, job, *one), prepared.uploads.items()):
            pass


def _sign_uploads(resources: Resources, job: Job) -> None:
    """Asks now for the URLs that the answer tells: a storage that signs by a request for each remembers what
    it has signed, and nobody waits for it with the database in hand.
    """
    with ThreadPoolExecutor(STORED_AT_ONCE, thread_name_prefix="uploads") as pool:
        for _ in pool.map(lambda index: views.upload_url(resources, job.id, index), range(job.total)):
            pass


def _store_upload(resources: Resources, job: Job, index: int, read: Callable[[], bytes]) -> None:
    resources.storage.put(ids.upload_key(job.id, index), read(), "application/octet-stream")


# -- dispatch -----------------------------------------------------------------------------------------


def dispatch(resources: Resources, job_id: UUID) -> None:
    """Gives the job to the broker. Raises `BrokerUnavailable`. May be done twice."""
    with resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        if job is None or job.status in ENDED:
            return
        band = _dispatching(session, job)
    _publish(resources, job, band)


def _dispatching(session: Session, job: Job) -> int:
    """Notes that the job is dispatched, as it mostly is: that spares a second transaction. Its band."""
    store.dispatching(job, now())
    return fairness.band_of_job(session, job)


def _publish(resources: Resources, job: Job, band: int) -> None:
    """Raises `BrokerUnavailable`; the job counts as not dispatched then."""
    pipeline = PIPELINES.get(job.pipeline)
    if pipeline is None:  # it was taken out since, or is newer than this process: the next one may know it
        log.warning("job %s is left: there is no pipeline %s here", job.id, job.pipeline)
        return
    canvas = pipeline.canvas(job, planned=bool(job.images))
    for step in getattr(canvas, "tasks", [canvas]):
        step.set(priority=priority_of(band, resources.settings.broker_url))
    try:
        if job.run > 1:  # the result of an earlier run stands under the same id
            resources.celery.backend.forget(str(job.id))
        canvas.apply_async(task_id=str(job.id))
    except (*BROKER_ERRORS, RuntimeError) as exc:  # the last: a result store that is away
        with resources.db.session_scope() as session:
            store.undispatched(session, job.id)
        raise BrokerUnavailable from exc


def _publish_or_leave(resources: Resources, job: Job, band: int) -> None:
    """Dispatches now if the broker is there; else the sweep does it later. The job is safe in both cases."""
    try:
        _publish(resources, job, band)
        notify.kick(resources, job)
    except BrokerUnavailable as exc:
        log.warning("job %s waits for the broker: %s", job.id, exc.__cause__)


# -- steering -----------------------------------------------------------------------------------------


def cancel(resources: Resources, job_id: UUID, owner: str) -> None:
    """Ends the job as canceled; one that has ended stays as it is. Raises `NotFound`."""
    with resources.db.session_scope() as session:
        job = _owned(session, job_id, owner)
        ended = store.cancel(session, job, now(), resources.settings.job_ttl)
    if ended:
        _tell_of_cancel(resources, job)


def cancel_late(resources: Resources, job_id: UUID) -> None:
    """Ends a job as canceled because its client did not want to wait any longer."""
    with resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        ended = job is not None and store.cancel(session, job, now(), resources.settings.job_ttl)
    if job is not None and ended:
        _tell_of_cancel(resources, job)


def _tell_of_cancel(resources: Resources, job: Job) -> None:
    lifecycle.publish_end(resources, job)
    notify.kick(resources, job)


def retry(resources: Resources, job_id: UUID, owner: str) -> None:
    """Runs again what failed, under the same id. Raises `NotFound`, or `Conflict` if nothing failed."""
    deadline = timedelta(seconds=resources.settings.job_deadline_s)
    with resources.db.session_scope() as session:
        job = _owned(session, job_id, owner)
        store.retry(session, job, now(), deadline)
        band = _dispatching(session, job)
    _publish_or_leave(resources, job, band)


def go_on(resources: Resources, job_id: UUID, owner: str, prompts: Sequence[str] | None) -> None:
    """Lets a job go on that waits for a review, or for files; `prompts`: with these in place of its own.

    Raises `NotFound`, `Conflict` where it waits for none, `InvalidRequest`, `QuotaReached` or `QueueFull`.
    """
    deadline = timedelta(seconds=resources.settings.job_deadline_s)
    if prompts is not None and len(prompts) > (most := resources.settings.max_count):
        error = FieldError("#/prompts", f"must be at most {most}")
        raise InvalidRequest("There are too many prompts.", errors=(error,))
    with resources.db.session_scope() as session:
        job = _owned(session, job_id, owner)
        if job.held_at is None:
            raise Conflict(f"The job waits for no word of yours: it is {job.status.value}.")
        if prompts is not None and job.takes_files:
            error = FieldError("#/prompts", "this job has no prompts")
            raise InvalidRequest("The job can't go on with these.", errors=(error,))
        plans = None if prompts is None else plans_of(job, prompts)
        if plans is not None and len(plans) > job.total:
            admission.admit(session, owner, len(plans) - job.total, _limits(resources))
        store.go_on(session, job, plans, now(), deadline)
        band = _dispatching(session, job)
    _publish_or_leave(resources, job, band)


def delete(resources: Resources, job_id: UUID, owner: str) -> None:
    """Deletes the job and its objects, canceling it first if it runs. Raises `NotFound`.

    It is gone for clients when this returns; what the storage could not delete now, the sweep does.
    """
    with resources.db.session_scope() as session:
        job = _owned(session, job_id, owner)
        job.deleted_at = now()
    lifecycle.forget_result(resources, job)
    try:
        retention.erase(resources.db, resources.storage, job)
    except StorageError as exc:
        log.warning("objects of job %s are left to the sweep: %s", job_id, exc.detail)


def _owned(session: Session, job_id: UUID, owner: str) -> Job:
    job = store.lock(session, job_id)
    if job is None or job.owner != owner:
        raise NotFound("There is no such job.")
    return job

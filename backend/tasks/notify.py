"""Webhooks: due deliveries are claimed, sent, and tried again after ever longer waits."""

import logging
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from backend import resources, views
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import (
    DeliveryFailed,
    NotifyError,
    ServiceUnavailable,
    StorageUnavailable,
    TargetGone,
    TargetRefused,
)
from backend.jobs import deliveries, endpoints, ids, items, queries
from backend.jobs.deliveries import Claim, Outcome
from backend.jobs.models import Job, JobEvent, WebhookDelivery
from backend.notify import secrets
from backend.notify.base import Notification
from backend.queue_depths import queue_depths
from backend.resources import Resources
from backend.views import now
from contract.queues import DELIVER_WEBHOOK, NOTIFY_QUEUE

log = logging.getLogger(__name__)

GONE = "The receiver answered 410 Gone."
DISABLED = "The endpoint is disabled."
DELETED = "The endpoint was deleted."
OURS = "Something went wrong on our side."
NO_URLS = "Nothing was sent: the storage is away, and signs no URLs."

Receiver = tuple[str, tuple[str, ...]]  # its URL, and the secrets that sign what it gets


def kick(parts: Resources, job: Job) -> None:
    """Starts the job's due deliveries, if any were recorded. What is not started here, the sweep starts."""
    if job.to_tell:
        send_due(parts, job.id)


def send_all_due(parts: Resources) -> None:
    """Puts what is due into the queue, once more where it was lost there. Raises `BrokerUnavailable`."""
    with parts.db.read_scope() as session:
        waits = deliveries.wait_in_the_broker(session, now())
    is_lost = waits and not queue_depths(parts.celery, [NOTIFY_QUEUE])[NOTIFY_QUEUE]
    send_due(parts, lost_after=deliveries.LOST_SOON if is_lost else deliveries.LOST_AFTER)


def send_due(
    parts: Resources, job_id: UUID | None = None, lost_after: timedelta = deliveries.LOST_AFTER
) -> None:
    """Puts what is due (of this job) into the queue."""
    with parts.db.session_scope() as session:
        due = deliveries.take_due(session, now(), job_id, lost_after=lost_after)
    for delivery_id in due:
        _send(delivery_id)


def _send(delivery_id: UUID) -> None:
    try:
        deliver_webhook.apply_async(kwargs={"delivery_id": str(delivery_id)})
    except BROKER_ERRORS as exc:
        log.warning("webhook %s waits for the broker: %s", delivery_id, exc)


@app.task(name=DELIVER_WEBHOOK, soft_time_limit=60, time_limit=90)
def deliver_webhook(delivery_id: str) -> None:
    """One attempt at one delivery. Its outcome is written down; nothing is raised for a bad receiver."""
    parts = resources.current()
    taken = _claim(parts, UUID(delivery_id))
    if taken is None:
        return
    claim, job, receiver = taken
    begun = time.monotonic()
    try:
        status_code = parts.notifier.send(_notification(parts, claim, job, receiver))
    except NotifyError as exc:
        _note_failure(parts, claim, exc, Outcome(exc.status_code, exc.detail, _ms_since(begun)))
    except ServiceUnavailable:
        raise  # nothing can be written down, either: its lease ends, and then it is sent again
    except Exception:  # ours to mend; it counts as a try, or it would be made each minute for ever
        log.exception("webhook %s broke off", ids.webhook_id(claim.event.job_id, claim.event.seq))
        _note_failure(parts, claim, DeliveryFailed(OURS), Outcome(None, OURS, _ms_since(begun)))
    else:
        with parts.db.session_scope() as session:
            deliveries.delivered(
                session, claim.attempt_id, Outcome(status_code, None, _ms_since(begun)), now()
            )


def _ms_since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)


def _claim(parts: Resources, delivery_id: UUID) -> tuple[Claim, Job, Receiver] | None:
    with parts.db.session_scope() as session:
        claim = deliveries.claim(session, delivery_id, now())
        job = queries.get(session, claim.delivery.job_id) if claim else None
        if claim is None or job is None:
            return None
        if claim.delivery.attempts > deliveries.MOST_ATTEMPTS:  # its workers were lost each time
            deliveries.abandon(session, claim.attempt_id, Outcome(None, deliveries.INTERRUPTED, 0))
            return None
        try:
            return claim, job, _receiver(parts, session, claim.delivery, job)
        except TargetRefused as exc:
            deliveries.abandon(session, claim.attempt_id, Outcome(None, exc.detail, 0))
            return None


def _notification(parts: Resources, claim: Claim, job: Job, receiver: Receiver) -> Notification:
    """Outside the transaction: the storage may have to be asked for URLs."""
    (url, signing), event = receiver, claim.event
    try:
        told = views.as_json(views.render(parts, job))
        told |= _details(parts, job, event, told)
    except StorageUnavailable as exc:
        raise DeliveryFailed(NO_URLS) from exc
    return Notification(
        id=ids.webhook_id(job.id, event.seq),
        type=event.type,
        timestamp=event.created_at,
        data=told,
        url=url,
        secrets=signing,
    )


def _receiver(parts: Resources, session: Session, delivery: WebhookDelivery, job: Job) -> Receiver:
    """Its URL, and the secrets that sign. Raises `TargetRefused` if it may not be told any more."""
    if delivery.endpoint_id is None:
        versions = endpoints.versions(endpoints.owner_secret(session, job.owner)).signing(now())
        signing = tuple(secrets.owner_secret(parts.secret, job.owner, version) for version in versions)
        return (job.webhook or {}).get("url", ""), signing
    endpoint = endpoints.get(session, delivery.endpoint_id)
    if endpoint is None or not endpoint.enabled:
        raise TargetRefused(DELETED if endpoint is None else DISABLED)
    versions = endpoints.versions(endpoint).signing(now())
    return endpoint.url, tuple(
        secrets.endpoint_secret(parts.secret, endpoint.id, version) for version in versions
    )


def _details(parts: Resources, job: Job, event: JobEvent, told: Mapping[str, Any]) -> dict[str, Any]:
    """A job's event tells the job's state when it happened, not when it is delivered; an image's, which image
    and likewise; an item's, which item: of thousands, the job's view has the first.
    """
    if event.type.startswith("job."):
        return event.data
    if event.type.startswith("image."):
        shown = {image["index"]: image for image in told["images"]}.get(event.data["index"])
        return {"image": shown | event.data} if shown else {}
    if not event.type.startswith("item."):
        return {}
    with parts.db.read_scope() as session:
        item = items.by_index(session, job.id, [event.data["index"]]).get(event.data["index"])
    return {"item": views.as_json(views.render_item(parts, item, job))} if item else {}


def _note_failure(parts: Resources, claim: Claim, failure: NotifyError, outcome: Outcome) -> None:
    name = ids.webhook_id(claim.event.job_id, claim.event.seq)
    if not isinstance(failure, DeliveryFailed):
        _give_up(parts, claim, failure, outcome)
        log.warning("webhook %s is given up: %s", name, failure.detail)
        return
    with parts.db.session_scope() as session:
        due = deliveries.postpone(
            session, claim.attempt_id, outcome, now(), parts.settings.webhook_retry_after_s,
            jitter=random.random(),  # noqa: S311
            asked_s=failure.retry_after_s,
        )  # fmt: skip
    log.warning("webhook %s failed: %s; next try %s", name, failure.detail, due or "never")


def _give_up(parts: Resources, claim: Claim, failure: NotifyError, outcome: Outcome) -> None:
    """An endpoint whose receiver is gone gets nothing more. It is locked first: see `give_up_all`."""
    gone = claim.delivery.endpoint_id if isinstance(failure, TargetGone) else None
    with parts.db.session_scope() as session:
        endpoint = endpoints.lock(session, gone) if gone else None
        deliveries.abandon(session, claim.attempt_id, outcome)
        if endpoint is not None and endpoint.enabled:
            endpoint.enabled, endpoint.disabled_reason, endpoint.updated_at = False, GONE, now()
            deliveries.give_up_all(session, endpoint.id, DISABLED)

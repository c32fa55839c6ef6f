"""Webhooks: due deliveries are claimed, sent, and tried again after ever longer waits."""

import base64
import hashlib
import hmac
import logging
import random
from datetime import timedelta
from uuid import UUID

from backend import resources, views
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import DeliveryFailed, TargetGone, TargetRefused
from backend.jobs import events, queries
from backend.jobs.models import Job
from backend.notify.base import Notification
from backend.queue_depths import queue_depths
from backend.resources import Resources
from backend.views import now
from contract.queues import DELIVER_WEBHOOK, NOTIFY_QUEUE

log = logging.getLogger(__name__)


def webhook_secret(secret: bytes, owner: str) -> str:
    """The owner's signing secret: derived, so that nothing more must be kept."""
    derived = hmac.new(secret, f"webhook/{owner}".encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(derived).decode()


def kick(parts: Resources, job: Job) -> None:
    """Starts the job's due deliveries, if there are any. What is not started here, the sweep starts."""
    if not job.webhook:
        return
    _send_due(parts, job.id)


def send_all_due(parts: Resources) -> None:
    """Puts what is due into the queue, once more where it was lost there. Raises `BrokerUnavailable`."""
    with parts.db.read_scope() as session:
        waits = events.wait_in_the_broker(session, now())
    is_lost = waits and not queue_depths(parts.celery, [NOTIFY_QUEUE])[NOTIFY_QUEUE]
    _send_due(parts, lost_after=events.LOST_SOON if is_lost else events.LOST_AFTER)


def _send_due(
    parts: Resources, job_id: UUID | None = None, lost_after: timedelta = events.LOST_AFTER
) -> None:
    with parts.db.session_scope() as session:
        due = events.take_due(session, now(), job_id, lost_after=lost_after)
    for one, seq in due:
        send(one, seq)


def send(job_id: UUID, seq: int) -> None:
    """Puts one delivery into the queue."""
    try:
        deliver_webhook.apply_async(kwargs={"job_id": str(job_id), "seq": seq})
    except BROKER_ERRORS as exc:
        log.warning("webhook %s/%s waits for the broker: %s", job_id, seq, exc)


@app.task(name=DELIVER_WEBHOOK, soft_time_limit=60, time_limit=90)
def deliver_webhook(job_id: str, seq: int) -> None:
    """One attempt at one delivery. Its outcome is written down; nothing is raised for a bad receiver."""
    parts = resources.current()
    notification = _claim(parts, UUID(job_id), seq)
    if notification is None:
        return
    try:
        parts.notifier.send(notification)
    except DeliveryFailed as exc:
        _postpone(parts, UUID(job_id), seq, exc.detail)
    except (TargetGone, TargetRefused) as exc:
        log.warning("webhook %s is given up: %s", notification.id, exc.detail)
        with parts.db.session_scope() as session:
            events.abandon_delivery(session, UUID(job_id), seq, exc.detail)
    else:
        with parts.db.session_scope() as session:
            events.delivered(session, UUID(job_id), seq, now())


def _claim(parts: Resources, job_id: UUID, seq: int) -> Notification | None:
    with parts.db.session_scope() as session:
        claimed = events.claim_delivery(session, job_id, seq, now())
        row = queries.get(session, job_id)
        if claimed is None or row is None or not row.webhook:
            return None
        event = claimed[1]
        view = views.render(parts, row)
        return Notification(
            id=f"msg_{job_id.hex}_{seq}",
            type=event.type,
            timestamp=event.created_at,
            data=views.as_json(view) | _as_it_was(event.type, event.data),
            url=row.webhook["url"],
            secret=webhook_secret(parts.secret, row.owner),
        )


def _as_it_was(event_type: str, data: dict[str, object]) -> dict[str, object]:
    """A job event tells the job's state when it happened, not when it is delivered."""
    return data if event_type.startswith("job.") else {}


def _postpone(parts: Resources, job_id: UUID, seq: int, reason: str) -> None:
    with parts.db.session_scope() as session:
        due = events.postpone_delivery(
            session, job_id, seq, reason, now(), parts.settings.webhook_retry_after_s,
            jitter=random.random(),  # noqa: S311
        )  # fmt: skip
    log.warning("webhook %s/%s failed: %s; next try %s", job_id, seq, reason, due or "never")

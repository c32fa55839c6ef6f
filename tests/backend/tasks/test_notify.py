"""Deliveries on their way through the broker, and what becomes of those that it loses."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from backend.jobs import deliveries
from backend.jobs.models import WebhookDelivery
from backend.tasks import notify
from backend.views import now
from contract.queues import NOTIFY_QUEUE
from tests.backend.conftest import MakeJob
from tests.backend.workplace import Workplace

WEBHOOK = {"url": "https://example.com", "events": ["job.created"]}


@pytest.fixture
def place(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(database_url, redis_url, tmp_path)
    yield place
    place.close()


def sent(place: Workplace, make_job: MakeJob, ago: timedelta) -> UUID:
    """One delivery, which was given to the broker so long ago; its message is taken out."""
    make_job(webhook=WEBHOOK)
    notify.send_due(place.parts)
    (delivery_id,) = waiting(place)
    with place.parts.db.session_scope() as session:
        when = WebhookDelivery.sent_at, WebhookDelivery.due_at
        session.execute(sa.update(WebhookDelivery).values({one: now() - ago for one in when}))
    return delivery_id


def waiting(place: Workplace) -> list[UUID]:
    return [UUID(message["delivery_id"]) for message in place.waiting(NOTIFY_QUEUE) if message]


def test_what_vanished_from_an_empty_queue_is_sent_again_soon(place: Workplace, make_job: MakeJob) -> None:
    delivery_id = sent(place, make_job, deliveries.LOST_SOON * 1.1)
    notify.send_all_due(place.parts)
    notify.send_all_due(place.parts)
    assert waiting(place) == [delivery_id]


def test_while_others_wait_it_may_be_among_them(place: Workplace, make_job: MakeJob) -> None:
    sent(place, make_job, deliveries.LOST_SOON * 1.1)
    place.fill(NOTIFY_QUEUE)
    notify.send_all_due(place.parts)
    assert waiting(place) == []


def test_but_not_for_ever(place: Workplace, make_job: MakeJob) -> None:
    delivery_id = sent(place, make_job, deliveries.LOST_AFTER * 1.1)
    place.fill(NOTIFY_QUEUE)
    notify.send_all_due(place.parts)
    assert waiting(place) == [delivery_id]


def test_what_was_sent_just_now_is_left_alone(place: Workplace, make_job: MakeJob) -> None:
    sent(place, make_job, deliveries.LOST_SOON / 2)
    notify.send_all_due(place.parts)
    assert waiting(place) == []

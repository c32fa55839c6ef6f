"""Deliveries from the row to the receiver, which really listens, and back into the log."""

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from backend import webhooks
from backend.errors import Conflict
from backend.jobs import deliveries, items, store
from backend.jobs.deliveries import DeliveryStatus
from backend.jobs.faults import Fault
from backend.jobs.items import Source
from backend.jobs.models import WebhookAttempt, WebhookDelivery
from backend.notify.base import Notification
from backend.notify.null import NullNotifier
from backend.tasks import notify
from backend.tasks.notify import deliver_webhook
from contract.queues import NOTIFY_QUEUE
from tests.backend.conftest import MakeJob, report
from tests.backend.jobs.test_store import failure, generated
from tests.backend.notify.receiver import Answer, Receiver, answering, receiver, status
from tests.backend.workplace import Workplace, working
from tests.storage.supabase_server import Handler, SupabaseServer, Work

OWNER = "local"
TIMEOUT_S = 0.8


@pytest.fixture
def place(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    place = Workplace(
        database_url, redis_url, tmp_path, webhook_allow_private=True, webhook_allow_http=True,
        webhook_timeout_s=TIMEOUT_S,
    )  # fmt: skip
    yield from working(place, monkeypatch)


@pytest.fixture
def listening() -> Iterator[Receiver]:
    with receiver() as got:
        yield got


def url_of(got: Receiver) -> str:
    return f"http://127.0.0.1:{got.port}/hook"


def add_endpoint(place: Workplace, url: str, *events: str) -> UUID:
    return webhooks.create_endpoint(
        place.parts, OWNER, url=url, events=list(events or ("job.created",)), description="", enabled=True
    ).id


def due(place: Workplace) -> list[UUID]:
    with place.parts.db.session_scope() as session:
        return deliveries.take_due(session, datetime.now(UTC))


def deliver(place: Workplace) -> list[UUID]:
    """Does the work of a worker for all that is due."""
    taken = due(place)
    for delivery_id in taken:
        deliver_webhook(delivery_id=str(delivery_id))
    return taken


def make_due(place: Workplace) -> None:
    """Waits and leases are over."""
    with place.parts.db.session_scope() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        rows = sa.update(WebhookDelivery).where(WebhookDelivery.due_at.is_not(None))
        session.execute(rows.values(due_at=past, sent_at=None))
        long_ago = datetime.now(UTC) - deliveries.LEASE * 2
        session.execute(sa.update(WebhookAttempt).values(started_at=long_ago))


def read(place: Workplace, delivery_id: UUID) -> WebhookDelivery:
    return webhooks.read_delivery(place.parts, delivery_id, OWNER)


def drip(connection: socket.socket) -> None:
    """A header that never ends."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        return  # it was left, as it should be


def sleep(_connection: socket.socket) -> None:
    time.sleep(TIMEOUT_S * 2)


# -- what is told -------------------------------------------------------------------------------------


def test_a_storage_that_signs_no_urls_now_is_waited_for_and_holds_up_nobody(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    with SupabaseServer().running() as project:
        # Given an image in a storage that has to be asked for its URL, and doesn't answer
        place.parts.storage = project.storage(timeout_s=1)
        add_endpoint(place, url_of(listening), "image.generated")
        job_id = make_job(planned=1)
        with place.parts.db.session_scope() as session:
            report(session, generated(job_id, 0), datetime.now(UTC))
        locked: list[bool] = []

        def write_meanwhile(handler: Handler, _work: Work) -> None:
            started = time.monotonic()
            with place.parts.db.session_scope() as session:
                session.execute(sa.update(WebhookDelivery).values(sent_at=None))
            locked.append(time.monotonic() - started > 0.9)
            handler.close_connection = True

        project.faults = [write_meanwhile]
        # When it is to be told
        (delivery_id,) = deliver(place)
        # Then nothing is sent, others could write, and the log says why
        assert listening.received == []
        assert locked
        assert not any(locked)
        assert read(place, delivery_id).last_error == notify.NO_URLS
        # And it is told when the storage is back
        project.faults = []
        make_due(place)
        deliver(place)
        assert len(listening.received) == 1


def test_of_thousands_of_items_the_one_is_told(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    # Given a job whose view has not all of its items
    add_endpoint(place, url_of(listening), "item.failed")
    last = items.SHOWN + 1
    sources = [Source(url=f"https://shop.example/{index}.png") for index in range(last + 1)]
    job_id = make_job(pipeline="uploads", takes_files=True, total=len(sources))
    with place.parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        items.plan(session, job, sources, datetime.now(UTC))
        found = items.by_index(session, job_id, [last])[last]
        items.end(
            session, job, found, Fault("image_unreadable", "No image.", retryable=False), datetime.now(UTC)
        )
    # When the end of the last one is told
    deliver(place)
    # Then it is in what is told
    (told,) = listening.received
    data = json.loads(told.body)["data"]
    assert len(data["items"]) == items.SHOWN
    assert (data["item"]["index"], data["item"]["status"]) == (last, "failed")
    assert data["item"]["error"]["code"] == "image_unreadable"


def test_an_event_of_an_image_says_which_and_how_it_was_then(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    add_endpoint(place, url_of(listening), "image.generated", "image.failed", "image.completed")
    job_id = make_job(planned=3)
    # Given images that were made, failed and were kept of a canceled job, before anybody is told of it
    with place.parts.db.session_scope() as session:
        report(session, generated(job_id, 1), datetime.now(UTC))
        report(session, failure(job_id, 2), datetime.now(UTC))
        job = store.lock(session, job_id)
        assert job is not None
        store.cancel(session, job, datetime.now(UTC))
    deliver(place)
    # Then each tells of one of them
    told = {one["type"]: one["data"] for one in (json.loads(one.body) for one in listening.received)}
    image = {kind: data["image"] for kind, data in told.items()}
    assert {kind: (one["index"], one["status"]) for kind, one in image.items()} == {
        "image.generated": (1, "in_progress"),
        "image.failed": (2, "failed"),
        "image.completed": (1, "completed"),
    }
    assert image["image.failed"]["error"]["code"] == "out_of_memory"
    assert image["image.generated"]["id"] == told["image.generated"]["images"][1]["id"]
    assert image["image.generated"]["url"]


# -- whom, and signed by what -------------------------------------------------------------------------


def test_an_endpoint_and_the_jobs_own_webhook_are_told_of_the_same_event(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    # Given an endpoint, and a job with a webhook of its own
    with receiver() as own:
        endpoint_id = add_endpoint(place, url_of(listening))
        make_job(webhook={"url": url_of(own), "events": ["job.created"]})
        # When both are delivered
        assert len(deliver(place)) == 2
        # Then each got the event under the same id, signed with its own secret
        (to_endpoint,), (to_job,) = listening.received, own.received
    assert to_endpoint.headers["webhook-id"] == to_job.headers["webhook-id"]
    of_endpoint = webhooks.endpoint_secret(place.parts, endpoint_id, OWNER).text
    of_owner = webhooks.owner_secret(place.parts, OWNER).text
    assert Webhook(of_endpoint).verify(to_endpoint.body, to_endpoint.headers)["type"] == "job.created"
    assert Webhook(of_owner).verify(to_job.body, to_job.headers)["type"] == "job.created"
    with pytest.raises(WebhookVerificationError):
        Webhook(of_owner).verify(to_endpoint.body, to_endpoint.headers)


@pytest.mark.parametrize("own", [True, False], ids=["job", "endpoint"])
def test_while_a_secret_is_changed_both_sign(
    place: Workplace, make_job: MakeJob, listening: Receiver, *, own: bool
) -> None:
    day, at_once = timedelta(days=1), timedelta(0)
    endpoint_id = None if own else add_endpoint(place, url_of(listening))
    hook = {"url": url_of(listening), "events": ["job.created"]} if own else None

    def secret() -> str:
        if endpoint_id is None:
            return webhooks.owner_secret(place.parts, OWNER).text
        return webhooks.endpoint_secret(place.parts, endpoint_id, OWNER).text

    def rotate(grace: timedelta) -> str:
        if endpoint_id is None:
            return webhooks.rotate_owner_secret(place.parts, OWNER, grace).text
        return webhooks.rotate_endpoint_secret(place.parts, endpoint_id, OWNER, grace).text

    def known_to(text: str) -> bool:
        request = listening.received[-1]
        try:
            Webhook(text).verify(request.body, request.headers)
        except WebhookVerificationError:
            return False
        return True

    def tell() -> int:
        make_job(webhook=hook)
        deliver(place)
        return len(listening.received[-1].headers["webhook-signature"].split(" "))

    first = secret()
    assert tell() == 1
    assert known_to(first)
    # While the old one has its grace, receivers with either take it
    second = rotate(day)
    assert second == secret() != first
    assert tell() == 2
    assert known_to(first)
    assert known_to(second)
    # Without a grace, only those with the new one
    third = rotate(at_once)
    assert tell() == 1
    assert [known_to(one) for one in (first, second, third)] == [False, False, True]


# -- receivers that are not well ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status_code", "reason"),
    [
        (status(500), 500, "The receiver answered 500."),
        (status(302, "Location: http://127.0.0.1:9/"), 302, "redirects are not followed"),
        (answering(b"nonsense\r\n\r\n"), None, "not valid HTTP"),
        (sleep, None, "did not answer within"),
        (drip, None, "did not answer within"),
    ],
    ids=["500", "redirecting", "nonsense", "slow", "dripping"],
)
def test_what_fails_is_logged_and_tried_again(
    place: Workplace, make_job: MakeJob, listening: Receiver, answer: Answer, status_code: int, reason: str
) -> None:
    # Given a receiver that is not well
    listening.answer = answer
    add_endpoint(place, url_of(listening))
    make_job()
    (delivery_id,) = deliver(place)
    # Then it is to be tried again after some seconds
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.PENDING
    assert row.due_at is not None
    assert 4 < (row.due_at - datetime.now(UTC)).total_seconds() < 7
    assert due(place) == []
    # When it is well again
    listening.answer = status(204)
    make_due(place)
    assert deliver(place) == [delivery_id]
    # Then it is delivered, under the same id, and the log tells of both
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.DELIVERED
    assert [one.status_code for one in row.log] == [status_code, 204]
    assert reason in (row.log[0].reason or "")
    assert row.log[1].reason is None
    assert all((one.duration_ms or 0) < TIMEOUT_S * 1000 + 500 for one in row.log)
    assert len({one.headers["webhook-id"] for one in listening.received}) == 1


@pytest.mark.parametrize(
    ("asked", "at_least_s", "at_most_s"), [("600", 500, 720), ("999999999", 3500, 4320), ("0", 0, 60)]
)
def test_a_receiver_may_ask_for_time(
    place: Workplace, make_job: MakeJob, listening: Receiver, asked: str, at_least_s: int, at_most_s: int
) -> None:
    listening.answer = status(503, f"Retry-After: {asked}")
    add_endpoint(place, url_of(listening))
    make_job()
    (delivery_id,) = deliver(place)
    due_at = read(place, delivery_id).due_at
    assert due_at is not None
    assert at_least_s < (due_at - datetime.now(UTC)).total_seconds() <= at_most_s


def test_a_receiver_that_is_down_is_tried_until_the_last_time(place: Workplace, make_job: MakeJob) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        add_endpoint(place, f"http://127.0.0.1:{reserved.getsockname()[1]}/")
        make_job()
        for _ in range(7):
            make_due(place)
            (delivery_id,) = deliver(place)
        make_due(place)
        assert due(place) == []
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert [(one.status_code, one.reason) for one in row.log] == [
        (None, "The receiver could not be reached.")
    ] * 7


def test_410_disables_an_endpoint_and_gives_up_the_rest(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    # Given an endpoint with two deliveries that are due, and another endpoint
    listening.answer = status(410)
    with receiver() as other:
        gone, fine = add_endpoint(place, url_of(listening)), add_endpoint(place, url_of(other))
        make_job()
        make_job()
        # When its receiver answers 410 to the first
        deliver(place)
        # Then it was asked once, and the other one got all
        assert len(listening.received) == 1
        assert len(other.received) == 2
        make_job()
        deliver(place)
        assert len(listening.received) == 1
        assert len(other.received) == 3
    endpoint = webhooks.read_endpoint(place.parts, gone, OWNER)
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, notify.GONE)
    assert webhooks.read_endpoint(place.parts, fine, OWNER).enabled
    with place.parts.db.read_scope() as session:
        rows = session.scalars(sa.select(WebhookDelivery).where(WebhookDelivery.endpoint_id == gone))
        assert [deliveries.status_of(row) for row in rows] == [DeliveryStatus.FAILED] * 2


def test_410_to_a_jobs_webhook_stops_that_delivery_alone(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    listening.answer = status(410)
    make_job(webhook={"url": url_of(listening), "events": ["job.created"]})
    (delivery_id,) = deliver(place)
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert [one.status_code for one in row.log] == [410]


def test_a_private_address_gets_nothing(
    place: Workplace, make_job: MakeJob, listening: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an endpoint whose name leads home by the time that something is to be told
    add_endpoint(place, url_of(listening))
    make_job()
    monkeypatch.setattr(place.parts.notifier._otherwise._gate, "_allow_private", False)  # type: ignore[attr-defined]
    (delivery_id,) = deliver(place)
    # Then nobody was called, and nobody will be
    assert listening.connections == 0
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert row.last_error == "127.0.0.1 is not on the public internet."


# -- what happens meanwhile ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "disabled", "deleted in between"])
def test_an_endpoint_that_goes_while_deliveries_are_due_gets_none(
    place: Workplace, make_job: MakeJob, listening: Receiver, how: str
) -> None:
    endpoint_id = add_endpoint(place, url_of(listening))
    job_id = make_job()
    (delivery_id,) = due(place)
    if how == "disabled":
        webhooks.change_endpoint(place.parts, endpoint_id, OWNER, enabled=False)
    elif how == "deleted":
        webhooks.delete_endpoint(place.parts, endpoint_id, OWNER)
    else:  # a transaction had seen it, and ended after that: its row is due, and nobody has given it up
        webhooks.delete_endpoint(place.parts, endpoint_id, OWNER)
        with place.parts.db.session_scope() as session:
            session.execute(sa.update(WebhookDelivery).values(due_at=datetime.now(UTC)))
    # What waits in the broker comes, and is nothing
    deliver_webhook(delivery_id=str(delivery_id))
    assert listening.connections == 0
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert row.last_error == (notify.DISABLED if how == "disabled" else notify.DELETED)
    with pytest.raises(Conflict):
        webhooks.redeliver(place.parts, delivery_id, OWNER)
    # And the job goes on as if nothing had happened
    with place.parts.db.session_scope() as session:
        assert store.begin(session, job_id, datetime.now(UTC)) is not None


def test_what_is_due_goes_to_the_new_url(place: Workplace, make_job: MakeJob, listening: Receiver) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint_id = add_endpoint(place, f"http://127.0.0.1:{reserved.getsockname()[1]}/")
    make_job()
    deliver(place)
    webhooks.change_endpoint(place.parts, endpoint_id, OWNER, url=url_of(listening))
    make_due(place)
    deliver(place)
    assert len(listening.received) == 1


class Killed(BaseException):
    """As if the process had ended there."""


def test_a_worker_that_dies_between_sending_and_noting_tells_it_twice_not_never(
    place: Workplace, make_job: MakeJob, listening: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that has sent it, and dies
    def die(*_: Any) -> None:
        raise Killed

    add_endpoint(place, url_of(listening))
    make_job()
    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "delivered", die)
        with pytest.raises(Killed):
            deliver(place)
    # Then nobody else takes it until the lease is over; after that it is told again, under the same id
    assert due(place) == []
    make_due(place)
    (delivery_id,) = deliver(place)
    first, second = listening.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    row = read(place, delivery_id)
    assert [(one.status_code, one.reason) for one in row.log] == [(None, deliveries.INTERRUPTED), (204, None)]


# -- once more ----------------------------------------------------------------------------------------


class Broken(NullNotifier):
    """As if there were a fault of ours in it, or in what is below it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def send(self, notification: Notification) -> None:
        raise self.error


def test_a_fault_of_ours_counts_as_a_try_and_is_told_in_the_log(
    place: Workplace, make_job: MakeJob, listening: Receiver
) -> None:
    place.parts.notifier = Broken(ZeroDivisionError())
    add_endpoint(place, url_of(listening))
    make_job()
    for _ in range(len(place.parts.settings.webhook_retry_after_s) + 1):
        make_due(place)
        (delivery_id,) = deliver(place)
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert {one.reason for one in row.log} == {"Something went wrong on our side."}


def test_a_delivery_that_kills_its_workers_is_given_up_some_time(
    place: Workplace, make_job: MakeJob, listening: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_ATTEMPTS", 3)
    place.parts.notifier = Broken(KeyboardInterrupt())  # nothing of ours catches it
    add_endpoint(place, url_of(listening))
    make_job()
    for _ in range(3):
        make_due(place)
        with pytest.raises(KeyboardInterrupt):
            deliver(place)
    place.parts.notifier = NullNotifier()
    make_due(place)
    (delivery_id,) = deliver(place)
    row = read(place, delivery_id)
    assert deliveries.status_of(row) is DeliveryStatus.FAILED
    assert row.last_error == deliveries.INTERRUPTED


def test_what_is_asked_for_is_told_again(place: Workplace, make_job: MakeJob, listening: Receiver) -> None:
    # Given what was delivered
    endpoint_id = add_endpoint(place, url_of(listening))
    make_job()
    (delivery_id,) = deliver(place)
    # When it is asked for again
    time.sleep(1.1)  # the timestamp counts in seconds
    webhooks.redeliver(place.parts, delivery_id, OWNER)
    (message,) = place.waiting(NOTIFY_QUEUE)
    deliver_webhook(**message)
    # Then it comes under the same id, signed anew
    first, second = listening.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    secret = webhooks.endpoint_secret(place.parts, endpoint_id, OWNER).text
    assert Webhook(secret).verify(second.body, second.headers)["type"] == "job.created"
    row = read(place, delivery_id)
    assert [one.status_code for one in row.log] == [204, 204]
    assert deliveries.status_of(row) is DeliveryStatus.DELIVERED


def test_only_what_was_recorded_is_looked_for(place: Workplace, make_job: MakeJob) -> None:
    # Given a job with a webhook for its end, which has begun
    job_id = make_job(webhook={"url": "http://127.0.0.1:9/", "events": ["job.failed"]})
    with place.parts.db.session_scope() as session:
        job = store.begin(session, job_id, datetime.now(UTC))
    assert job is not None
    # When it is kicked, then nothing is asked, and nothing sent
    asked: list[str] = []
    sa.event.listen(place.parts.db.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    notify.kick(place.parts, job)
    assert asked == []

"""What the node tells the backend: together where it comes together, and never lost while it lives."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from contract.messages import FailureCode, ImageFailure, ImageStarted
from contract.queues import DEFAULT_QUEUE
from contract.signals import Signals, connect
from gpu_worker.batcher import Draining
from gpu_worker.celery_app import create_celery_app
from gpu_worker.fail_open import FailOpen
from gpu_worker.reports import Reports
from gpu_worker.settings import Settings
from tests.gpu_worker.valkey import Valkey

JOB = uuid4()


def started(index: int) -> ImageStarted:
    return ImageStarted(
        job_id=JOB, image_id=uuid4(), index=index, run=1, node="n", attempts=1, started_at=datetime.now(UTC)
    )


def ended(index: int) -> ImageFailure:
    return ImageFailure(
        job_id=JOB,
        image_id=uuid4(),
        index=index,
        run=1,
        code=FailureCode.INTERNAL,
        message="m",
        retryable=True,
    )


def messages(app: Celery) -> list[list[tuple[str, int]]]:
    """What lies in the queue: the reports of each message."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        taken = []
        while (message := channel.basic_get(DEFAULT_QUEUE, no_ack=True)) is not None:
            ((reports,), _, _) = message.decode()
            taken.append([(report["kind"], report["index"]) for report in reports])
        return taken


def running(url: str) -> Iterator[tuple[Celery, Reports]]:
    app = create_celery_app(Settings(broker_url=url))
    store = connect(url)
    reports = Reports(app, Signals(store), FailOpen("The store", (redis.RedisError,), pause_s=0))
    reports.start()
    yield app, reports
    reports.give_up()
    reports.stop()
    reports.join(20)
    assert not reports.is_alive()
    store.close()
    app.close()


@pytest.fixture
def told(valkey: Valkey) -> Iterator[tuple[Celery, Reports]]:
    yield from running(valkey.url)


def at_once(reports: Reports, count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=reports.ended, args=(ended(index),)) for index in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_an_end_that_was_reported_lies_in_the_queue(told: tuple[Celery, Reports]) -> None:
    app, reports = told
    reports.started(started(0))
    reports.ended(ended(0))
    assert messages(app) == [[("started", 0), ("failure", 0)]], "one message: the begin waited for its end"


def test_what_ends_together_is_told_together(told: tuple[Celery, Reports]) -> None:
    app, reports = told
    for thread in at_once(reports, 30):
        thread.join()
    found = messages(app)
    assert sorted(index for message in found for _, index in message) == list(range(30))
    assert len(found) < 15


def test_an_end_is_kept_before_it_is_reported_unless_the_image_comes_again(
    told: tuple[Celery, Reports], valkey: Valkey
) -> None:
    _, reports = told
    failed = ended(0)
    again = ended(1).model_copy(update={"code": FailureCode.UPLOAD_EXPIRED})
    reports.ended(failed)
    reports.ended(again)
    with valkey.client() as client:
        kept = [Signals(client).receive(JOB, report.image_id, 1).kept_result for report in (failed, again)]
    assert kept == [failed.model_dump_json(), None]


def test_a_begin_without_an_end_is_told_soon(told: tuple[Celery, Reports]) -> None:
    app, reports = told
    reports.started(started(3))
    for _ in range(100):
        if found := messages(app):
            break
        threading.Event().wait(0.05)
    assert found == [[("started", 3)]]


def test_a_broker_that_is_away_is_waited_for(own_valkey: Valkey) -> None:
    for app, reports in running(own_valkey.url):
        own_valkey.stop()
        (thread,) = at_once(reports, 1)
        thread.join(1)
        assert thread.is_alive(), "the message of its image must not be acknowledged yet"
        own_valkey.start()
        thread.join(30)
        assert not thread.is_alive()
        assert messages(app) == [[("failure", 0)]]


def test_who_leaves_waits_no_longer(own_valkey: Valkey) -> None:
    for _, reports in running(own_valkey.url):
        own_valkey.stop()
        threading.Timer(0.5, reports.give_up).start()
        with pytest.raises(Draining):
            reports.ended(ended(0))

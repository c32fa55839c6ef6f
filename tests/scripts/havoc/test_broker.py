"""What is done to a Redis: as Celery sees it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from contract.queues import GENERATE_IMAGE, SWEEP, celery_settings, gpu_queue
from scripts.havoc import broker
from scripts.havoc.broker import RedisBroker
from tests.services import missing


@pytest.fixture
def redis_broker(tmp_path: Path) -> Iterator[RedisBroker]:
    try:
        made = RedisBroker(tmp_path)
    except broker.NoServer as exc:
        missing(str(exc))
    with made.service.running():
        yield made


@pytest.fixture
def app(redis_broker: RedisBroker) -> Iterator[Celery]:
    app = Celery("havoc", set_as_current=False)
    app.conf.update(celery_settings(redis_broker.url, redis_broker.result_url))
    yield app
    app.close()


def test_copies_are_messages_of_their_own_and_lie_where_the_first_does(
    redis_broker: RedisBroker, app: Celery
) -> None:
    app.send_task(SWEEP)
    app.send_task(GENERATE_IMAGE, queue=gpu_queue("sketch"), priority=3)

    assert redis_broker.duplicate(2) == "1 of default, 1 of gpu.sketch"

    assert redis_broker.left() == {"default": 2, "gpu.sketch": 2}
    with app.connection_for_read() as connection, connection.SimpleQueue("default") as queue:
        first, second = queue.get(timeout=60), queue.get(timeout=60)
        assert first.headers["id"] == second.headers["id"]
        assert first.delivery_tag != second.delivery_tag
        assert redis_broker.left() == {"unacked": 2, "gpu.sketch": 2}
        assert redis_broker.deliver_again() == "2 messages"
        first.ack()
        second.ack()


def test_a_flush_forgets_everything(redis_broker: RedisBroker, app: Celery) -> None:
    app.send_task(SWEEP)

    redis_broker.flush()

    assert redis_broker.left() == {}


def test_killed_and_started_again_it_has_kept_its_messages(redis_broker: RedisBroker, app: Celery) -> None:
    app.send_task(SWEEP)
    time.sleep(1.1)  # it writes its file every second

    broker.kill(redis_broker.service)
    redis_broker.service.start()

    assert redis_broker.left() == {"default": 1}


def test_a_paused_one_can_go_on_and_can_be_stopped_at_once(redis_broker: RedisBroker) -> None:
    broker.pause(redis_broker.service)
    broker.resume(redis_broker.service)
    assert redis_broker.left() == {}

    begun = time.monotonic()
    redis_broker.service.stop()
    assert time.monotonic() - begun < 10

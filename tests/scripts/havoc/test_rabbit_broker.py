"""What is done to a RabbitMQ: as Celery sees it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from contract.queues import GENERATE_IMAGE, SWEEP, celery_settings, gpu_queue
from contract.routing import AMQP, cpu_queue, rabbitmq_queues
from scripts.havoc import broker
from scripts.havoc.broker import RabbitBroker
from tests.services import missing


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitBroker]:
    try:
        made = RabbitBroker(tmp_path_factory.mktemp("rabbit"))
    except broker.NoServer as exc:
        missing(str(exc))
    with contextlib.ExitStack() as started:
        for service in (*made.beside, made.service):
            started.enter_context(service.running())
        yield made


@pytest.fixture
def app(rabbit: RabbitBroker) -> Iterator[Celery]:
    rabbit.flush()
    app = Celery("havoc", amqp=AMQP, set_as_current=False)
    queues = {"task_queues": rabbitmq_queues(rabbit.url, cpu_queue)}
    app.conf.update(celery_settings(rabbit.url, rabbit.result_url) | queues)
    yield app
    app.close()


def soon(tell: Callable[[], object], expected: object) -> None:
    """Its statistics are some seconds old."""
    end = time.monotonic() + 30
    while (told := tell()) != expected and time.monotonic() < end:
        time.sleep(0.2)
    assert told == expected


def taken(app: Celery) -> str | None:
    """Takes a message of the queue `default`: the id of its task."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get("default", no_ack=True)
    return message and str(message.headers["id"])


def given_again(rabbit: RabbitBroker, app: Celery) -> str | None:
    """Cuts the connections that are known by now, and takes what was in their hands."""
    assert rabbit.deliver_again().endswith(" messages")
    return taken(app)


def test_copies_lie_where_the_first_does(rabbit: RabbitBroker, app: Celery) -> None:
    app.send_task(SWEEP)
    app.send_task(GENERATE_IMAGE, queue=gpu_queue("sketch"), priority=3)
    soon(rabbit.left, {"default": 1, "gpu.sketch": 1})
    assert rabbit.duplicate(2) == "1 of default, 1 of gpu.sketch"
    soon(rabbit.left, {"default": 2, "gpu.sketch": 2})
    copies = [taken(app), taken(app)]
    assert copies[0] == copies[1] is not None


def test_what_is_in_somebodys_hands_is_given_to_others(rabbit: RabbitBroker, app: Celery) -> None:
    app.send_task(SWEEP)
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        held = channel.basic_get("default").headers["id"]
        assert taken(app) is None
        soon(lambda: given_again(rabbit, app), held)


def test_a_flush_forgets_everything(rabbit: RabbitBroker, app: Celery) -> None:
    app.send_task(SWEEP)
    soon(rabbit.left, {"default": 1})
    rabbit.flush()
    soon(rabbit.left, {})


def test_killed_and_started_again_it_has_kept_its_messages(rabbit: RabbitBroker, app: Celery) -> None:
    app.send_task(SWEEP)
    broker.kill(rabbit.service)
    rabbit.service.start()
    soon(rabbit.left, {"default": 1})

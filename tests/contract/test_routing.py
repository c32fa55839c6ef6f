"""What a real RabbitMQ does with our queues: the promises of the sweep and the order of images rest on it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from contract.queues import (
    CPU_QUEUES,
    DEFAULT_QUEUE,
    GENERATE_IMAGE,
    LLM_QUEUE,
    MEDIA_QUEUE,
    SAVE_IMAGES,
    TAKE_REPORTS,
    celery_settings,
    gpu_queue,
    priority_of,
)
from contract.routing import AMQP, cpu_queue, rabbitmq_queues, reported_to
from tests.rabbitmq import RabbitServer

NOWHERE = "redis://127.0.0.1:1/0"


def app_of(url: str, make: Callable[[str], Queue]) -> Celery:
    app = Celery(set_as_current=False, amqp=AMQP)
    own = {"task_queues": rabbitmq_queues(url, make), "result_backend": "disabled://"}
    app.conf.update(celery_settings(url, NOWHERE) | own)
    return app


@pytest.fixture
def backend(rabbitmq_url: str) -> Iterator[Celery]:
    """Sends to all queues, and declares them."""
    with app_of(rabbitmq_url, cpu_queue) as app:
        yield app


@pytest.fixture
def node(rabbitmq_url: str) -> Iterator[Celery]:
    """Sends to queues of CPU workers, and declares only those of its models."""
    with app_of(rabbitmq_url, reported_to) as app:
        yield app


@pytest.fixture
def channel(backend: Celery) -> Iterator[Any]:
    with backend.connection_for_read() as connection:
        yield connection.default_channel


def take(channel: Any, queue: str) -> list[Any]:
    return list(iter(partial(channel.basic_get, queue), None))


def waiting_in(channel: Any, queue: str) -> int:
    """As the sweep asks."""
    return int(channel.queue_declare(queue, passive=True).message_count)


def names(messages: list[Any]) -> list[str]:
    return [message.headers["task"] for message in messages]


@pytest.mark.parametrize("queue", [gpu_queue("sketch"), LLM_QUEUE])
def test_lower_bands_come_first_and_what_is_handed_back_keeps_its_band(
    backend: Celery, channel: Any, rabbitmq_url: str, queue: str
) -> None:
    for band in (9, 3, 0, 5, 3, 0):
        backend.send_task(f"{band}", queue=queue, priority=priority_of(band, rabbitmq_url))
    assert waiting_in(channel, queue) == 6
    messages = take(channel, queue)
    assert names(messages) == ["0", "0", "3", "3", "5", "9"]
    for message in messages:
        channel.basic_reject(message.delivery_tag, requeue=True)
    assert names(take(channel, queue)) == ["0", "0", "3", "3", "5", "9"]


def test_what_comes_back_too_often_is_dropped(backend: Celery, channel: Any) -> None:
    backend.send_task("kills its worker")  # the default queue
    deliveries = 0
    while message := channel.basic_get(DEFAULT_QUEUE):
        deliveries += 1
        channel.basic_reject(message.delivery_tag, requeue=True)
        time.sleep(0.02)
    assert deliveries == 21, "once, and 20 times again"


def test_both_sides_send_to_the_same_queues(backend: Celery, node: Celery, channel: Any) -> None:
    backend.send_task(SAVE_IMAGES)
    node.send_task(SAVE_IMAGES)
    backend.send_task(GENERATE_IMAGE, queue=gpu_queue("sketch"))
    node.send_task(GENERATE_IMAGE, queue=gpu_queue("sketch"))
    assert waiting_in(channel, MEDIA_QUEUE) == 2
    assert waiting_in(channel, gpu_queue("sketch")) == 2


def test_a_queue_that_the_broker_lost_is_declared_anew(
    backend: Celery, channel: Any, shared_rabbitmq: RabbitServer, rabbitmq_url: str
) -> None:
    # Given a process that has sent to these queues before
    queues = [*CPU_QUEUES, gpu_queue("sketch")]
    for queue in queues:
        backend.send_task("one", queue=queue)
    # When they are gone, and it sends again
    for queue in queues:
        shared_rabbitmq.manage("DELETE", f"queues/{rabbitmq_url.rpartition('/')[2]}/{queue}")
        backend.send_task("another", queue=queue)
    # Then nothing vanishes
    for queue in queues:
        assert names(take(channel, queue)) == ["another"], queue


def test_a_report_that_nobody_can_get_is_an_error(node: Celery, backend: Celery) -> None:
    backend.send_task("makes the exchange", queue=MEDIA_QUEUE)
    with pytest.raises(OperationalError, match="no queue takes"):
        node.send_task(TAKE_REPORTS)


def test_messages_are_kept_on_disk(backend: Celery, channel: Any) -> None:
    for queue in (DEFAULT_QUEUE, gpu_queue("sketch")):
        backend.send_task("one", queue=queue)
        (message,) = take(channel, queue)
        assert message.properties["delivery_mode"] == 2


@pytest.mark.parametrize("queue", [DEFAULT_QUEUE, LLM_QUEUE])
def test_what_is_delayed_waits_apart_and_then_comes_once(backend: Celery, channel: Any, queue: str) -> None:
    # Given what a worker declares when it starts, and a model whose name ends like the queue's
    kind = backend.conf.broker_native_delayed_delivery_queue_type
    with backend.connection_for_write() as connection:
        declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
        for known in backend.amqp.queues.values():
            known(connection).declare()
            bind_queue_to_native_delayed_delivery_exchange(connection, known)
    backend.send_task("a clone", queue=gpu_queue(queue))
    # When a task is to come in two seconds
    started = time.monotonic()
    backend.send_task("later", queue=queue, countdown=2)
    backend.send_task("now", queue=queue)
    # Then it holds up nobody, and comes in time
    assert names(take(channel, queue)) == ["now"]
    while not (later := take(channel, queue)):
        assert time.monotonic() - started < 20
        time.sleep(0.1)
    assert names(later) == ["later"]
    assert time.monotonic() - started > 1.5
    # And nowhere else
    assert names(take(channel, gpu_queue(queue))) == ["a clone"]
    assert sum(waiting_in(channel, f"celery_delayed_{level}") for level in range(28)) == 0

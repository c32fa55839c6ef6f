"""What a real broker does with bands: the order of images rests on it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from amqp.exceptions import ChannelError
from celery import Celery

from contract.queues import BANDS, celery_settings, gpu_queue, priority_of

QUEUES = (gpu_queue("a"), gpu_queue("b"))
IN_ORDER = ["0", "3", "9", "0", "3", "5"]  # of the first queue, and of the second


@pytest.fixture
def channel(redis_url: str) -> Iterator[Any]:
    """Of a node's kind: the messages that are sent by the tests wait in it."""
    app = Celery(set_as_current=False)
    app.conf.update(celery_settings(redis_url, redis_url))
    for place, band in enumerate((9, 3, 0, 5, 3, 0)):
        app.send_task(f"{band}", queue=QUEUES[place % 2], priority=priority_of(band, redis_url))
    with app.connection_for_read() as connection:
        yield connection.default_channel
    app.close()


def consume(channel: Any) -> list[Any]:
    """All messages, in the order in which a node gets them."""
    taken: list[Any] = []
    for queue in QUEUES:
        channel.basic_consume(queue, no_ack=False, callback=taken.append, consumer_tag=queue)
    while len(taken) < 6:
        channel.connection.client.drain_events(timeout=60)
    return taken


def take(channel: Any) -> list[Any]:
    """All messages, one queue after the other."""
    return [message for queue in QUEUES for message in iter(partial(channel.basic_get, queue), None)]


def bands(messages: list[Any]) -> list[str]:
    return [message.headers["task"] for message in messages]


def waiting(channel: Any) -> int:
    return sum(waiting_in(channel, queue) for queue in QUEUES)


def waiting_in(channel: Any, queue: str) -> int:
    """As the sweep asks."""
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:  # on Redis an empty queue is none
        return 0


def test_lower_bands_come_first_whatever_their_queue(channel: Any) -> None:
    assert waiting(channel) == 6, "messages of all bands are counted"
    assert bands(consume(channel)) == ["0", "0", "3", "3", "5", "9"]


def test_what_is_handed_back_keeps_its_band(channel: Any) -> None:
    for message in take(channel):
        channel.basic_reject(message.delivery_tag, requeue=True)
    assert waiting(channel) == 6
    assert bands(take(channel)) == IN_ORDER


def test_so_does_what_a_dead_node_had_taken(channel: Any) -> None:
    take(channel)
    channel.qos.visibility_timeout = 0
    channel.qos.restore_visible(interval=1)
    assert waiting(channel) == 6
    assert bands(take(channel)) == IN_ORDER


def test_all_bands_are_emptied(channel: Any) -> None:
    assert sum(channel.queue_purge(queue) for queue in QUEUES) == 6
    assert waiting(channel) == 0


def test_on_rabbitmq_the_highest_number_comes_first() -> None:
    assert [priority_of(band, "amqp://h") for band in (0, BANDS - 1)] == [9, 0]
    assert [priority_of(band, "redis://h") for band in (0, BANDS - 1)] == [0, 9]

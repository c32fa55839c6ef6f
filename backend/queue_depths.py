"""How many messages wait in the broker's queues."""

from collections.abc import Iterable
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery

from backend.celery_app import BROKER_ERRORS
from backend.errors import BrokerUnavailable

CONNECT_TIMEOUT_S = 2


def queue_depths(celery: Celery, queues: Iterable[str]) -> dict[str, int]:
    """Messages in each queue that nobody has taken. Raises `BrokerUnavailable`."""
    try:
        with celery.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_TIMEOUT_S)
            channel: Any = connection.channel()
            depths = {}
            for queue in queues:
                if not getattr(channel, "is_open", True):  # RabbitMQ closes it where there is no such queue
                    channel = connection.channel()
                depths[queue] = _depth(channel, queue)
            return depths
    except BROKER_ERRORS as exc:
        raise BrokerUnavailable from exc


def _depth(channel: Any, queue: str) -> int:  # noqa: ANN401 - each transport has its own
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:  # no such queue: nothing waits in it
        return 0

"""The brokers that the system runs on, as tests treat them: stopped, started, emptied."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from tests.rabbitmq import RabbitServer
from tests.services import RedisServer

BROKERS = ("redis", "rabbitmq")


class Broker(Protocol):
    """A broker, and the result store that goes with it."""

    @property
    def env(self) -> dict[str, str]:
        """The settings that name both."""

    def stop(self) -> None:
        """In good order."""

    def start(self) -> None:
        """With the data that it had."""

    def forget_everything(self) -> None:
        """As if it were new. The result store, too."""


@dataclass
class OnRedis:
    """Broker and result store are one."""

    server: RedisServer

    @property
    def env(self) -> dict[str, str]:
        return {"FANFARE_BROKER_URL": self.server.url()}

    def stop(self) -> None:
        self.server.service.stop()

    def start(self) -> None:
        self.server.service.start()

    def forget_everything(self) -> None:
        with self.server.client() as client:
            client.flushall()


@dataclass
class OnRabbitMQ:
    """RabbitMQ, and a Redis for results."""

    server: RabbitServer
    url: str
    results: RedisServer

    @property
    def env(self) -> dict[str, str]:
        return {"FANFARE_BROKER_URL": self.url, "FANFARE_RESULT_URL": self.results.url()}

    def stop(self) -> None:
        self.server.service.stop()

    def start(self) -> None:
        if not self.server.service.is_running():
            self.server.service.start()

    def forget_everything(self) -> None:
        """Its queues are gone, too, and publishers that have declared them are still there."""
        vhost = self.url.rpartition("/")[2]
        for queue in self.server.manage("GET", f"queues/{vhost}?disable_stats=true&enable_queue_totals=true"):
            if queue.get("exclusive"):  # of a connection: it is gone with that
                continue
            self.server.manage("DELETE", f"queues/{vhost}/{queue['name']}")
        with self.results.client() as client:
            client.flushall()


def shared_broker(kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings that name a broker that nobody has used yet. It is not to be stopped."""
    redis: RedisServer = request.getfixturevalue("shared_redis")
    if kind == "redis":
        return {"FANFARE_BROKER_URL": redis.new_url()}
    rabbitmq: RabbitServer = request.getfixturevalue("shared_rabbitmq")
    return {"FANFARE_BROKER_URL": rabbitmq.new_url(), "FANFARE_RESULT_URL": redis.new_url()}


@contextlib.contextmanager
def own_broker(kind: str, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """To stop and to empty. A RabbitMQ takes long to start, so there is one, and it is left running."""
    redis: RedisServer = request.getfixturevalue("own_redis")
    if kind == "redis":
        yield OnRedis(redis)
        return
    rabbitmq: RabbitServer = request.getfixturevalue("shared_rabbitmq")
    broker = OnRabbitMQ(rabbitmq, rabbitmq.new_url(), redis)
    try:
        yield broker
    finally:
        broker.start()
        rabbitmq.drop(broker.url)

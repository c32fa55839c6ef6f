"""A node from outside: over TLS, with a certificate of one's own authority, as a user who may do little."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
import trustme
from celery import Celery

from contract.signals import connect
from gpu_worker.broker import Unreachable, check_broker, check_result_store
from gpu_worker.celery_app import create_celery_app
from gpu_worker.settings import Settings
from tests.acceptance.stack import Part, Stack, stack
from tests.gpu_worker.processes import children_of
from tests.services import RedisServer, redis_server
from tests.tls_front import TlsFront, tls_front

PASSWORD = "operators-own"
DATABASE = 3


@dataclass
class Outside:
    """A system whose node joined from outside, and both kinds of clients of its broker."""

    system: Stack
    operator: "redis.Redis"
    node: "redis.Redis"
    url: str  # the node's
    front: TlsFront

    @property
    def app(self) -> Celery:
        """As a node has it."""
        return create_celery_app(Settings(broker_url=self.url))

    def join(self, **env: str) -> Part:
        """One more node. Which authority it trusts is in the URL alone."""
        own = {"FANFARE_BROKER_URL": self.url, "SSL_CERT_FILE": "", "FANFARE_NODE_ENGINES": "sketch"}
        return self.system.start("node", **(own | env))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """With a password. Valkey from the package index speaks no TLS: that is put before it."""
    with redis_server() as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        yield server


def new_user(operator: "redis.Redis", name: str) -> str:
    """What the documents say: the printed line goes to Redis. The password of the new user."""
    command = [sys.executable, "-m", "backend.cli", "node-acl", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *rest = done.stdout.split()
    assert first == "user"
    operator.execute_command("ACL SETUSER", *rest)  # type: ignore[no-untyped-call]  # redis-py's own
    return done.stderr.partition(f"rediss://{name}:")[2].partition("@")[0]


@pytest.fixture(scope="module")
def outside(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    authority = trustme.CA()
    pem = folder / "authority.pem"
    authority.cert_pem.write_to_path(pem)
    own = redis.Redis(port=server.port, db=DATABASE, password=PASSWORD, decode_responses=True)
    with own as operator, tls_front(authority, server.port) as front:
        password = new_user(operator, "rented")
        address = f"127.0.0.1:{front.port}/{DATABASE}"
        with stack(folder, SSL_CERT_FILE=str(pem), FANFARE_SWEEP_INTERVAL_S="1") as system:
            broker = f"rediss://:{PASSWORD}@{address}"
            for kind in ("api", "worker"):
                system.start(kind, FANFARE_BROKER_URL=broker)
            url = f"rediss://rented:{password}@{address}?ssl_ca_certs={pem}"
            with redis.Redis.from_url(url, decode_responses=True) as node:
                outside = Outside(system, operator, node, url, front)
                outside.join(FANFARE_SKETCH_DELAY_S="0.5")
                system.wait_until_ready()
                system.wait_for_node()
                operator.acl_log_reset()
                yield outside


def refused(operator: "redis.Redis") -> list[str]:
    """What the server has refused to the node, but for the one question whether it may be controlled."""
    log = [entry for entry in operator.acl_log() if entry["username"] == "rented"]
    return [str(entry) for entry in log if entry["object"] != "subscribe"]


def redeliver_what_is_lost(node: Celery) -> None:
    """What a node does for a dead one's messages once their visibility timeout has passed."""
    with node.connection_for_write() as connection:
        connection.transport_options = {**(connection.transport_options or {}), "visibility_timeout": 0}
        channel: Any = connection.channel()
        channel.qos.restore_visible(interval=1)
        channel.close()


def test_a_node_needs_no_more_than_that(outside: Outside) -> None:
    # When a job of four images is made
    job = outside.system.ended(outside.system.submit(count=4))
    # Then it is, over TLS, and nothing that the node has tried was refused
    assert job["status"] == "completed", outside.system.logs()
    assert outside.front.connections > 3
    assert refused(outside.operator) == []


def test_nor_does_it_when_things_go_wrong(outside: Outside) -> None:
    # Given a node that is killed with images in hand
    system = outside.system
    task_id = system.submit(count=6)
    system.until(lambda: any(image["status"] == "in_progress" for image in system.job(task_id)["images"]))
    for process in children_of(system.parts[-1].process.pid):
        os.kill(process, signal.SIGKILL)
    system.parts[-1].kill()

    # When another one takes over, and is told to leave amid its work
    second = outside.join(FANFARE_SKETCH_DELAY_S="1", FANFARE_NODE_DRAIN_S="0")
    system.until(lambda: "Ready" in second.log.read_text())
    redeliver_what_is_lost(outside.app)
    system.until(lambda: any(image["status"] == "completed" for image in system.job(task_id)["images"]))
    assert second.stop() == 0
    outside.join()

    # Then all images are made, within what a node may do
    assert system.ended(task_id)["status"] == "completed", system.logs()
    assert refused(outside.operator) == []


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "SHUTDOWN NOSAVE", "CONFIG GET *", "CONFIG SET requirepass x", "ACL LIST",
        "ACL SETUSER rented allcommands", "MONITOR", "INFO", "CLIENT LIST", "CLIENT KILL ID 1",
        "MODULE LIST", "REPLICAOF NO ONE", "SAVE", "BGREWRITEAOF", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE",
        "SWAPDB 0 3", "MIGRATE 127.0.0.1 1 gpu.x 0 5", "EVAL return(redis.call('FLUSHALL')) 0",
        "EVAL return(redis.call('RPOP','llm')) 0", "SCRIPT FLUSH",
        # Other queues, and what others have in hand
        "BRPOP default 1", "BRPOP llm 1", "BRPOP media 1", "BRPOP notify 1", "LPUSH llm x", "LPUSH notify x",
        "LRANGE media 0 -1", "DEL default", "SET media x", "EXPIRE media 1", "RPUSH default x",
            "LPUSH media x", "GET celery-task-meta-x", "SET celery-task-meta-x 1",
            "HGET unacked x", "HDEL unacked x", "ZRANGE unacked_index 0 -1",
        "SMEMBERS _kombu.binding.default", "SADD _kombu.binding.llm x",
        # What the backend keeps there
        "SET fanfare:cancel:x 1", "HGETALL fanfare:nodes", "HGET fanfare:models sketch", "GET anything",
            "DEL fanfare:nodes", "HDEL fanfare:models sketch", "EXPIRE fanfare:models 1",
        # Remote control of workers
        "PUBLISH /3.celery.pidbox x", "SUBSCRIBE /3.celery.pidbox", "PSUBSCRIBE *",
    ],
)  # fmt: skip
def test_it_may_do_nothing_else(outside: Outside, command: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        outside.node.execute_command(*command.split())  # type: ignore[no-untyped-call]  # redis-py's own


def test_a_certificate_that_nobody_vouches_for_is_refused(outside: Outside) -> None:
    url = outside.url.partition("?")[0]
    with pytest.raises(Unreachable, match=r"authority .* is not trusted here"):
        check_broker(create_celery_app(Settings(broker_url=url)))
    with connect(url) as client, pytest.raises(Unreachable, match=r"authority .* is not trusted here"):
        check_result_store(client, url)

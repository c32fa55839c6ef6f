"""A node from outside on RabbitMQ: over TLS, as a user who may do little."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from amqp.exceptions import AccessRefused, AMQPError
from kombu import Connection

from contract.addresses import amqp_tls, celery_url
from contract.node_access import NODE_CONFIGURE, NODE_READ, NODE_TOPICS, NODE_WRITE
from contract.queues import transport_options
from gpu_worker.broker import Unreachable, check_broker, lets_us_be_controlled
from gpu_worker.celery_app import create_celery_app
from gpu_worker.settings import Settings
from tests.acceptance.stack import Stack, stack
from tests.rabbitmq import RabbitServer
from tests.services import RedisServer
from tests.tls_front import tls_front

PASSWORD = "sesame"


@dataclass
class Outside:
    """A system whose node joined from outside."""

    system: Stack
    url: str  # the node's
    results: str


@pytest.fixture(scope="module")
def outside(
    shared_rabbitmq: RabbitServer, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    pem = folder / "authority.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(pem)
    vhost = shared_rabbitmq.new_url().rpartition("/")[2]
    new_user(shared_rabbitmq, vhost)
    results = shared_redis.new_url()
    with tls_front(authority, shared_rabbitmq.port) as front:
        address = f"127.0.0.1:{front.port}/{vhost}"
        with stack(folder, SSL_CERT_FILE=str(pem), FANFARE_RESULT_URL=results) as system:
            for kind in ("api", "worker"):
                system.start(kind, FANFARE_BROKER_URL=f"amqps://guest:guest@{address}")
            system.wait_until_ready()
            url = f"amqps://rented:{PASSWORD}@{address}?ssl_ca_certs={pem}"
            system.start("node", FANFARE_BROKER_URL=url, SSL_CERT_FILE="")
            system.wait_for_node()
            yield Outside(system, url, results)


def new_user(server: RabbitServer, vhost: str) -> None:
    """As the documents say it, by the management API instead of rabbitmqctl."""
    server.manage("PUT", "users/rented", password=PASSWORD, tags="")
    may = {"configure": NODE_CONFIGURE, "write": NODE_WRITE, "read": NODE_READ}
    server.manage("PUT", f"permissions/{vhost}/rented", **may)
    topics = {"exchange": "fanfare", "write": NODE_TOPICS, "read": "^$"}
    server.manage("PUT", f"topic-permissions/{vhost}/rented", **topics)


def connection(url: str) -> Connection:
    return Connection(celery_url(url), ssl=amqp_tls(url) or False, transport_options=transport_options(url))


def test_a_node_needs_no_more_than_that(outside: Outside) -> None:
    system = outside.system
    job = system.ended(system.submit(count=4))
    assert job["status"] == "completed", system.logs()
    types = [name for _, name in system.events(job["task_id"])]
    assert (types.count("image.started"), types.count("image.generated")) == (4, 4)
    log = system.parts[-1].log.read_text()
    assert "ACCESS_REFUSED" not in log, log
    # And it goes in good order
    assert system.parts[-1].stop() == 0
    system.start("node", FANFARE_BROKER_URL=outside.url, SSL_CERT_FILE="")
    system.wait_for_node()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("basic_get", ("default",)), ("basic_get", ("llm",)), ("basic_get", ("media",)),
        ("queue_delete", ("default",)), ("queue_purge", ("media",)), ("exchange_delete", ("fanfare",)),
        ("queue_declare", ("mine",)), ("exchange_declare", ("mine", "topic")),
        ("queue_bind", ("gpu.sketch", "fanfare", "#")), ("exchange_bind", ("gpu", "fanfare", "#")),
        ("exchange_declare", ("celery.pidbox", "fanout")),
    ],
)  # fmt: skip
def test_it_may_do_nothing_else(outside: Outside, method: str, arguments: tuple[Any, ...]) -> None:
    with connection(outside.url) as link, pytest.raises(AccessRefused):
        getattr(link.default_channel, method)(*arguments)


@pytest.mark.parametrize(
    ("exchange", "key"),
    [("", "llm"), ("", "default"), ("fanfare", "llm"), ("fanfare", "notify"), ("celery.pidbox", "")],
)
def test_it_may_send_nowhere_else(outside: Outside, exchange: str, key: str) -> None:
    with connection(outside.url) as link, pytest.raises(AccessRefused):
        link.Producer().publish({}, exchange=exchange, routing_key=key)


def test_it_is_not_to_be_controlled_and_the_backend_is(outside: Outside, rabbitmq_url: str) -> None:
    for url, expected in ((outside.url, False), (rabbitmq_url, True)):
        app = create_celery_app(Settings(broker_url=url, result_url=outside.results))
        assert lets_us_be_controlled(app) is expected


def test_what_is_wrong_is_told_in_words(outside: Outside) -> None:
    wrong = {
        outside.url.partition("?")[0]: r"authority .* is not trusted here",
        outside.url.replace(PASSWORD, "guess"): "refused the user name or the password",
    }
    for url, words in wrong.items():
        app = create_celery_app(Settings(broker_url=url, result_url=outside.results))
        with pytest.raises(Unreachable, match=words):
            check_broker(app)
    with pytest.raises(AMQPError), connection(outside.url.replace(PASSWORD, "guess")) as link:
        link.connect()


def test_the_documents_say_the_same() -> None:
    text = Path("docs/operations.md").read_text("utf-8")
    for words in (NODE_CONFIGURE, NODE_WRITE, NODE_READ, NODE_TOPICS):
        assert f"'{words}'" in text


def test_the_node_can_be_examined(outside: Outside) -> None:
    env = outside.system.env | {"FANFARE_BROKER_URL": outside.url, "SSL_CERT_FILE": ""}
    for command in (["gpu_worker", "check"], ["backend.cli", "doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env},
        )  # fmt: skip
        assert "broker" in done.stdout
        assert PASSWORD not in done.stdout + done.stderr
        if command[0] == "gpu_worker":
            assert done.returncode == 0, done.stdout + done.stderr

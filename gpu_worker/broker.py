"""Tells in plain words whether the broker and the result store can be reached, and waits for them."""

import logging
import secrets
from collections.abc import Callable
from typing import Any

import redis
from amqp.exceptions import AccessRefused
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from gpu_worker.log import scrub

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0  # between two tries; doubled each time
LONGEST_PAUSE_S = 15.0


class Unreachable(Exception):
    """A service can't be used; the text says why and what to mend."""


def check_broker(app: Celery) -> None:
    """Connects once. Raises `Unreachable`."""
    url = scrub(str(app.conf.broker_url))
    with app.connection_for_read() as connection:
        try:
            connection.connect()
            connection.default_channel  # noqa: B018 - opening it makes the first exchange
        except _errors_of(connection) as exc:
            raise Unreachable(f"The broker at {url} {_told(exc)} (FANFARE_BROKER_URL).") from exc


def check_result_store(client: "redis.Redis", url: str) -> None:
    """Asks for a sign of life. Raises `Unreachable`."""
    try:
        client.ping()
    except redis.RedisError as exc:
        raise Unreachable(f"The result store at {scrub(url)} {_told(exc)} (FANFARE_RESULT_URL).") from exc


def wait_for_broker(app: Celery, leaving: Callable[[float], bool]) -> bool:
    """Tries until the broker can be reached: True; False once we leave. `leaving` sleeps so long."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            check_broker(app)
        except Unreachable as exc:
            logger.error("%s Trying again in %.0f s.", exc, pause)  # noqa: TRY400 - the text tells all
        else:
            return True
        if leaving(pause):
            return False
        pause = min(pause * 2, LONGEST_PAUSE_S)


def lets_us_be_controlled(app: Celery) -> bool:
    """Whether this node may listen to remote control (`celery inspect`, Flower).

    Who may listen there may also speak, and end every worker: a user for nodes may not.
    """
    with app.connection_for_read() as connection:
        may_listen = {"redis": _may_listen_on_redis, "amqp": _may_listen_on_rabbitmq}
        return may_listen[connection.transport.driver_type](app, connection.default_channel)


def _may_listen_on_redis(app: Celery, channel: Any) -> bool:  # noqa: ANN401 - each transport has its own
    with channel.client.pubsub() as listening:
        control: Any = app.control
        listening.subscribe(channel._get_publish_topic(control.mailbox.exchange.name, ""))
        try:
            listening.get_message(timeout=2)
        except redis.exceptions.NoPermissionError:
            return False
    return True


def _may_listen_on_rabbitmq(app: Celery, channel: Any) -> bool:  # noqa: ANN401 - each transport has its own
    control: Any = app.control
    try:
        control.mailbox.get_queue(f"probe-{secrets.token_hex(8)}")(channel).declare()
    except AccessRefused:
        return False
    return True


def _errors_of(connection: Connection) -> tuple[type[Exception], ...]:
    """What a broken connection may raise; it depends on the broker."""
    transport: Any = connection
    return (*transport.connection_errors, *transport.channel_errors, OperationalError, OSError)


def _told(exc: BaseException) -> str:
    """What is wrong, in words for who runs the node. Servers tell a wrong password in many ways."""
    text = " ".join(f"{link}" for link in _chain(exc)).lower()
    if any(sign in text for sign in ("wrongpass", "invalid username-password", "access_refused", "403")):
        return "refused the user name or the password"
    if "noauth" in text or "authentication required" in text:
        return "wants a password, and none is in the URL"
    if "without any password configured" in text:
        return "has no password, but one is in the URL"
    if "name or service not known" in text or "nodename nor servname" in text or "name resolution" in text:
        return "can't be found: no such host name"
    if "certificate verify failed" in text:
        return (
            "shows a certificate whose authority (or name) is not trusted here: "
            "name the authority's file in the URL, ?ssl_ca_certs=FILE, or in SSL_CERT_FILE"
        )
    if "noperm" in text or "no permissions" in text:
        return "does not let this user do what a node must: `fanfare node-acl` prints a user who may"
    if "refused" in text:
        return "refused the connection: nothing listens there"
    if "timed out" in text or "timeout" in text:
        return "doesn't answer"
    return f"can't be used: {scrub(str(exc))}"


def _chain(exc: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while exc is not None and exc not in links:
        links.append(exc)
        exc = exc.__cause__ or exc.__context__
    return links

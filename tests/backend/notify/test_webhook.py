"""Deliveries to a receiver that really listens."""

import base64
import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
import trustme
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from backend.errors import DeliveryFailed, TargetGone, TargetRefused
from backend.notify.addresses import IPAddress, LookupUnavailable, NameNotFound
from backend.notify.base import Notification, Notifier
from backend.notify.null import NullNotifier
from backend.notify.webhook import WebhookNotifier
from tests.backend.notify.receiver import Receiver, answering, receiver, status

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOCALHOST = ip_address("127.0.0.1")


def notification(url: str) -> Notification:
    return Notification(
        id="msg_1",
        type="job.completed",
        timestamp=datetime(2026, 11, 20, 12, 0, tzinfo=timezone(timedelta(hours=2))),
        data={"task_id": "t", "message": "Zürich 東京"},
        url=url,
        secrets=(SECRET,),
    )


class Names:
    """A resolver whose answers the test decides; each answer is used once, the last one for ever."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[IPAddress]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [ip_address(text) for text in answer]


def open_notifier(timeout_s: float = 5, **kwargs: object) -> WebhookNotifier:
    """As on a developer's machine: everything near may be called."""
    return WebhookNotifier(timeout_s=timeout_s, allow_private=True, allow_http=True, **kwargs)  # type: ignore[arg-type]


def strict_notifier(resolver: Names) -> WebhookNotifier:
    return WebhookNotifier(timeout_s=5, allow_private=False, allow_http=True, resolver=resolver)


@pytest.fixture
def listening() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


# -- delivered ----------------------------------------------------------------------------------------


def test_a_delivery_is_a_standard_webhook(listening: Receiver) -> None:
    # When a notification is sent
    open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/hook?tenant=7"))

    # Then one request arrives, which the receiver's library verifies
    (request,) = listening.received
    assert request.request_line == "POST /hook?tenant=7 HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{listening.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Fanfare")
    assert request.headers["webhook-id"] == "msg_1"
    payload = Webhook(SECRET).verify(request.body, request.headers)

    # And the body is compact, in UTC, and of the time of the event, not of the delivery
    assert payload == {
        "type": "job.completed",
        "timestamp": "2026-11-20T10:00:00Z",
        "data": {"task_id": "t", "message": "Zürich 東京"},
    }
    assert request.body == json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def test_each_secret_signs(listening: Receiver) -> None:
    # Given a secret that is being changed
    other = "whsec_" + base64.b64encode(b"another secret of 32 characters!").decode()
    told = replace(notification(f"http://127.0.0.1:{listening.port}/"), secrets=(other, SECRET))
    # When something is told meanwhile
    assert open_notifier().send(told) == 204
    # Then a receiver takes it, whichever it knows, and one that knows neither doesn't
    (request,) = listening.received
    assert re.fullmatch(r"v1,\S+ v1,\S+", request.headers["webhook-signature"])
    for secret in (other, SECRET):
        Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(request.body, request.headers)


def test_the_signature_is_of_now(listening: Receiver) -> None:
    # Receivers refuse what is older than five minutes, and the last attempt comes after hours
    open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    signed_at = int(listening.received[0].headers["webhook-timestamp"])
    assert abs(signed_at - datetime.now(UTC).timestamp()) < 5


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_delivery(listening: Receiver, code: int) -> None:
    listening.answer = status(code)
    assert open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/")) == code


def test_an_endless_body_is_not_read(listening: Receiver) -> None:
    # Given a receiver that says yes and then never stops
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    listening.answer = endless
    began = time.monotonic()
    open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert time.monotonic() - began < 4  # its deadline is after 5


def test_proxies_of_the_environment_are_not_used(
    listening: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert len(listening.received) == 1


def test_the_next_address_is_tried(listening: Receiver) -> None:
    # Given a name of which only the second address listens
    names = Names(["127.0.0.2", "127.0.0.1"])
    open_notifier(resolver=names).send(notification(f"http://two.example:{listening.port}/"))
    assert listening.received[0].headers["host"] == f"two.example:{listening.port}"


# -- not delivered ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 404, 409, 429, 500, 503])
def test_anything_else_is_a_failure(listening: Receiver, code: int) -> None:
    listening.answer = status(code)
    with pytest.raises(DeliveryFailed, match=str(code)) as refused:
        open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert refused.value.status_code == code


@pytest.mark.parametrize(
    ("said", "asked_s"),
    [("120", 120), ("0.5", 1), ("soon", None), ("-5", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_how_long_it_wants_to_be_left_alone_is_heard(
    listening: Receiver, said: str, asked_s: int | None
) -> None:
    listening.answer = status(429, f"retry-after: {said}")
    with pytest.raises(DeliveryFailed) as refused:
        open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert refused.value.retry_after_s == asked_s


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(listening: Receiver, code: int) -> None:
    listening.answer = status(code, f"Location: http://127.0.0.1:{listening.port}/elsewhere")
    with pytest.raises(DeliveryFailed, match="redirects"):
        open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert listening.connections == 1


def test_410_means_stop(listening: Receiver) -> None:
    listening.answer = status(410)
    with pytest.raises(TargetGone):
        open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 101 X\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 2", b"\x00" * 200_000]
)
def test_an_answer_that_is_not_http(listening: Receiver, raw: bytes) -> None:
    listening.answer = answering(raw)
    with pytest.raises(DeliveryFailed):
        open_notifier().send(notification(f"http://127.0.0.1:{listening.port}/"))


def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(DeliveryFailed, match="reached"):
            open_notifier().send(notification(f"http://127.0.0.1:{reserved.getsockname()[1]}/"))


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 103 Early\r\nX: 1\r\n\r\n"])
def test_a_receiver_that_drips_is_left_at_the_deadline(listening: Receiver, head: bytes) -> None:
    # Given a receiver that sends a little all the time, so that no single read ever times out
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(head if b"103" in head else b"x")
            time.sleep(0.05)

    listening.answer = drip
    began = time.monotonic()
    with pytest.raises(DeliveryFailed, match=r"within 0\.5 s"):
        open_notifier(timeout_s=0.5).send(notification(f"http://127.0.0.1:{listening.port}/"))
    assert 0.4 < time.monotonic() - began < 8


def test_a_receiver_that_never_reads_is_left_at_the_deadline() -> None:
    # Given somebody who accepts, reads nothing, and a body that no buffer takes
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        large = notification(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        large.data["message"] = "x" * 30_000_000
        began = time.monotonic()
        with pytest.raises(DeliveryFailed, match="within"):
            open_notifier(timeout_s=1).send(large)
        assert time.monotonic() - began < 20


def test_a_receiver_that_says_no_before_it_has_read_all_is_heard(listening: Receiver) -> None:
    # An early 413 must not turn into "the connection broke off"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(DeliveryFailed, match="413"):
            open_notifier().send(notification(f"http://127.0.0.1:{server.getsockname()[1]}/"))
        thread.join()


# -- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
)
def test_an_address_that_is_not_public_is_refused_at_submit_and_at_delivery(host: str) -> None:
    notifier = strict_notifier(Names(NameNotFound()))
    with pytest.raises(TargetRefused, match="public"):
        notifier.check_target(f"http://{host}:8080/")
    with pytest.raises(TargetRefused, match="public"):
        notifier.send(notification(f"http://{host}:8080/"))


def test_localhost_is_refused_by_what_it_resolves_to() -> None:
    notifier = WebhookNotifier(timeout_s=5, allow_private=False, allow_http=True)
    with pytest.raises(TargetRefused):
        notifier.check_target("http://localhost:8080/")


def test_one_private_address_among_public_ones_spoils_them_all() -> None:
    with pytest.raises(TargetRefused):
        strict_notifier(Names(["8.8.8.8", "10.0.0.1"])).check_target("https://mixed.example/")


def test_a_name_that_turns_private_after_submit_is_refused(listening: Receiver) -> None:
    # Given a name that was public when the job was submitted
    notifier = strict_notifier(Names(["8.8.8.8"], ["127.0.0.1"]))
    url = f"http://rebind.example:{listening.port}/"
    notifier.check_target(url)

    # When it answers with a private address at delivery
    with pytest.raises(TargetRefused):
        notifier.send(notification(url))

    # Then nobody has been called
    assert listening.connections == 0


def test_a_name_is_looked_up_once_per_delivery(listening: Receiver) -> None:
    # Given a name whose second answer would lead elsewhere
    names = Names(["127.0.0.1"], ["127.0.0.9"])
    open_notifier(resolver=names).send(notification(f"http://rebind.example:{listening.port}/"))

    # Then the address that was checked is the one that was called
    assert names.asked == ["rebind.example"]
    assert len(listening.received) == 1


def test_metadata_is_refused_even_on_a_developers_machine() -> None:
    with pytest.raises(TargetRefused):
        open_notifier().check_target("http://169.254.169.254/latest/meta-data/")


def test_at_submit_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TargetRefused, match="does not resolve"):
        strict_notifier(Names(NameNotFound())).check_target("https://typo.example/")


def test_at_submit_a_name_server_that_is_away_refuses_nobody() -> None:
    strict_notifier(Names(LookupUnavailable())).check_target("https://fine.example/")


@pytest.mark.parametrize("answer", [NameNotFound(), LookupUnavailable()])
def test_at_delivery_a_name_without_an_address_is_worth_another_try(answer: Exception) -> None:
    with pytest.raises(DeliveryFailed):
        strict_notifier(Names(answer)).send(notification("https://away.example/"))


# -- TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> WebhookNotifier:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return open_notifier(resolver=Names(["127.0.0.1"]), ssl_context=context)


def test_tls_is_with_the_name_and_tcp_with_the_address(
    authority: trustme.CA, trusting: WebhookNotifier
) -> None:
    # Given a receiver with a certificate for its name only
    context = _server_context(authority, "hooks.example")
    asked: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: asked.append(name)
    with receiver(context) as listening:
        trusting.send(notification(f"https://hooks.example:{listening.port}/"))

    # Then the name went into SNI and Host
    assert asked == ["hooks.example"]
    assert listening.received[0].headers["host"] == f"hooks.example:{listening.port}"


def test_a_certificate_for_another_name_is_a_failure(
    authority: trustme.CA, trusting: WebhookNotifier
) -> None:
    with receiver(_server_context(authority, "other.example")) as listening:
        with pytest.raises(DeliveryFailed, match="certificate"):
            trusting.send(notification(f"https://hooks.example:{listening.port}/"))
        assert listening.received == []


def test_a_certificate_of_an_unknown_authority_is_a_failure(authority: trustme.CA) -> None:
    with receiver(_server_context(authority, "hooks.example")) as listening:
        notifier = open_notifier(resolver=Names(["127.0.0.1"]))
        with pytest.raises(DeliveryFailed, match="certificate"):
            notifier.send(notification(f"https://hooks.example:{listening.port}/"))


def test_plain_http_behind_https_is_a_failure(listening: Receiver, trusting: WebhookNotifier) -> None:
    listening.answer = status(200)
    with pytest.raises(DeliveryFailed):
        trusting.send(notification(f"https://hooks.example:{listening.port}/"))


def test_a_handshake_that_never_ends_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(DeliveryFailed, match="within"):
            open_notifier(timeout_s=0.5).send(notification(f"https://127.0.0.1:{mute.getsockname()[1]}/"))
        assert time.monotonic() - began < 20


# -- the one that delivers nowhere --------------------------------------------------------------------


def test_null_takes_everything_and_calls_nobody(
    listening: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    notifier: Notifier = NullNotifier()
    url = f"http://127.0.0.1:{listening.port}/secret-path"
    with caplog.at_level(logging.INFO):
        notifier.check_target(url)
        notifier.send(notification(url))
    assert listening.connections == 0
    assert "msg_1" in caplog.text
    assert "secret-path" not in caplog.text


def test_both_are_notifiers() -> None:
    notifiers: list[Notifier] = [NullNotifier(), open_notifier()]
    assert [notifier.name for notifier in notifiers] == ["null", "webhook"]

"""Downloads from a server that really listens, on its good days and its bad ones."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import trustme

from backend.download import Downloader
from backend.errors import ReferenceAway, ReferenceRefused, ReferenceUnavailable, TargetRefused
from backend.notify.addresses import LookupUnavailable, NameNotFound
from tests.backend.notify.receiver import Receiver, answering, receiver, status
from tests.backend.notify.test_webhook import Names

BODY = b"\x89PNG" + bytes(range(256)) * 8


def open_downloader(*names: list[str] | Exception, **changes: object) -> Downloader:
    """As on a developer's machine: everything near may be asked."""
    given: dict[str, object] = {
        "timeout_s": 5.0, "max_bytes": len(BODY), "allow_private": True, "allow_http": True,
        "resolver": Names(*(names or (["127.0.0.1"],))),
    }  # fmt: skip
    return Downloader(**(given | changes))  # type: ignore[arg-type]


def strict_downloader(*names: list[str] | Exception) -> Downloader:
    return open_downloader(*names, allow_private=False)


def sending(body: bytes, *more: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *more, "", ""])
    return head.encode() + body


@pytest.fixture
def host() -> Iterator[Receiver]:
    with receiver() as it:
        it.answer = answering(sending(BODY))
        yield it


def url(host: Receiver, path: str = "/a.png") -> str:
    return f"http://pictures.example:{host.port}{path}"


def test_what_is_there_is_fetched_by_a_plain_get(host: Receiver) -> None:
    assert open_downloader().fetch(url(host, "/a.png?size=l")) == BODY

    (request,) = host.received
    assert request.request_line == "GET /a.png?size=l HTTP/1.1"
    assert request.headers["host"] == f"pictures.example:{host.port}"
    assert set(request.headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_without_a_length_it_ends_with_the_connection(host: Receiver) -> None:
    host.answer = answering(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    assert open_downloader().fetch(url(host)) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "X-GZip"])
def test_what_is_packed_although_nobody_asked_is_unpacked(host: Receiver, encoding: str) -> None:
    host.answer = answering(sending(gzip.compress(BODY), f"Content-Encoding: {encoding}"))

    assert open_downloader().fetch(url(host)) == BODY


def test_what_is_not_packed_although_it_says_so_is_taken_as_it_is(host: Receiver) -> None:
    host.answer = answering(sending(BODY, "Content-Encoding: gzip"))

    assert open_downloader().fetch(url(host)) == BODY


def test_what_unpacks_to_no_end_is_refused(host: Receiver) -> None:
    host.answer = answering(sending(gzip.compress(bytes(500_000)), "Content-Encoding: gzip"))

    with pytest.raises(ReferenceRefused, match="larger"):
        open_downloader().fetch(url(host))


@pytest.mark.parametrize("packed", [gzip.compress(BODY)[:-20], b"\x1f\x8b" + bytes(50)])
def test_what_is_packed_and_broken_is_asked_for_again(host: Receiver, packed: bytes) -> None:
    host.answer = answering(sending(packed, "Content-Encoding: gzip"))

    with pytest.raises(ReferenceAway):
        open_downloader().fetch(url(host))


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_is_taken_is_not_read_on(host: Receiver, declared: bool) -> None:
    # Given a host that sends for ever, and says so or not
    def send(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 999999999\r\n" if declared else b"") + b"\r\n"
        )
        while True:
            connection.sendall(b"x" * 65536)

    host.answer = send
    with pytest.raises(ReferenceRefused, match="larger"):
        open_downloader().fetch(url(host))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"]
)
def test_a_host_that_drips_is_left_at_the_deadline(host: Receiver, head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    host.answer = drip
    begun = time.monotonic()
    with pytest.raises(ReferenceAway, match="in time"):
        open_downloader(timeout_s=0.5).fetch(url(host))
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (500, ReferenceAway), (503, ReferenceAway), (429, ReferenceAway), (408, ReferenceAway),
        (404, ReferenceUnavailable), (403, ReferenceUnavailable), (410, ReferenceUnavailable),
        (204, ReferenceUnavailable), (206, ReferenceUnavailable), (304, ReferenceUnavailable),
    ],
)  # fmt: skip
def test_what_passes_is_worth_another_try(host: Receiver, code: int, kind: type[Exception]) -> None:
    host.answer = status(code)
    with pytest.raises(ReferenceUnavailable, match=f"pictures.example answered {code}") as raised:
        open_downloader().fetch(url(host, "/?signature=secret"))
    assert type(raised.value) is kind
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 2", sending(BODY)[:-1]])
def test_an_answer_that_is_none_or_cut_off(host: Receiver, raw: bytes) -> None:
    host.answer = answering(raw)
    with pytest.raises(ReferenceAway):
        open_downloader().fetch(url(host))


# -- where it may go ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
)
def test_an_address_that_is_not_public_is_refused(where: str) -> None:
    downloader = strict_downloader(NameNotFound())
    with pytest.raises(TargetRefused, match="public"):
        downloader.check(f"http://{where}:8080/")
    with pytest.raises(ReferenceRefused, match="public"):
        downloader.fetch(f"http://{where}:8080/")


def test_a_name_that_turns_private_is_refused(host: Receiver) -> None:
    downloader = strict_downloader(["8.8.8.8"], ["127.0.0.1"])
    downloader.check(url(host))

    with pytest.raises(ReferenceRefused):
        downloader.fetch(url(host))

    assert host.connections == 0


def test_the_address_that_was_checked_is_the_one_that_is_called(host: Receiver) -> None:
    assert open_downloader(["127.0.0.1"], ["127.0.0.9"]).fetch(url(host)) == BODY


@pytest.mark.parametrize(
    "wrong", ["ftp://a.example/", "file:///etc/passwd", "https://u:p@a.example/", "https://a.example:22/"]
)
def test_only_the_web_is_asked(wrong: str) -> None:
    with pytest.raises(TargetRefused):
        open_downloader().check(wrong)
    with pytest.raises(ReferenceRefused):
        open_downloader().fetch(wrong)


def test_plain_http_only_where_it_is_allowed() -> None:
    with pytest.raises(TargetRefused, match="https"):
        open_downloader(allow_http=False).check("http://a.example/")


def test_names_that_do_not_resolve() -> None:
    with pytest.raises(TargetRefused):
        strict_downloader(NameNotFound()).check("https://typo.example/")
    strict_downloader(LookupUnavailable()).check("https://fine.example/")  # the fetch decides
    with pytest.raises(ReferenceAway):
        strict_downloader(LookupUnavailable()).fetch("https://fine.example/")


# -- redirects ------------------------------------------------------------------------------------------


def test_a_redirect_is_followed(host: Receiver) -> None:
    host.answer = lambda connection: (
        status(302, "Location: /b.png") if len(host.received) == 1 else answering(sending(BODY))
    )(connection)

    assert open_downloader().fetch(url(host)) == BODY
    assert [one.request_line for one in host.received] == ["GET /a.png HTTP/1.1", "GET /b.png HTTP/1.1"]


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest", "http://[fe80::1]/", "ftp://x.example/", "gopher://127.0.0.1:6379/_"],
)
def test_a_redirect_is_checked_as_the_first_url_was(host: Receiver, location: str) -> None:
    host.answer = status(307, f"Location: {location}")
    with pytest.raises(ReferenceRefused):
        open_downloader().fetch(url(host))


def test_a_redirect_into_the_private_network_is_refused(host: Receiver) -> None:
    # Given a name that is public for once, and a redirect to one that is not
    with receiver() as inner:
        host.answer = status(301, f"Location: http://inner.example:{inner.port}/")
        downloader = open_downloader(["127.0.0.1"], ["169.254.0.1"])
        with pytest.raises(ReferenceRefused):
            downloader.fetch(url(host))
        assert inner.connections == 0


@pytest.mark.parametrize("location", ["/a.png", "", "http://a:b/"])
def test_redirects_without_an_end_or_a_goal(host: Receiver, location: str) -> None:
    host.answer = status(302, f"Location: {location}")
    with pytest.raises(ReferenceUnavailable, match="redirected"):
        open_downloader().fetch(url(host))
    assert host.connections <= 4


# -- TLS ------------------------------------------------------------------------------------------------


def test_tls_is_with_the_name() -> None:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with receiver(server) as host:
        host.answer = answering(sending(BODY))
        downloader = open_downloader(ssl_context=trusting)
        assert downloader.fetch(f"https://pictures.example:{host.port}/") == BODY
        with pytest.raises(ReferenceUnavailable, match="certificate"):
            downloader.fetch(f"https://other.example:{host.port}/")

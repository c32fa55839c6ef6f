"""Letters to a mail server that really listens."""

import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any, Literal

import pytest
import trustme

from backend.errors import DeliveryFailed, TargetRefused
from backend.notify import letter
from backend.notify.base import Notification, Notifier
from backend.notify.by_scheme import SchemeNotifier
from backend.notify.mail import MailNotifier, NoMail
from backend.notify.mailto import parse_mailto
from backend.notify.null import NullNotifier
from backend.notify.smtp import MailServer, Security
from tests.backend.notify.mail_server import PASSWORD, USER, mail_server

SENDER = Address("Fanfare", addr_spec="fanfare@example.com")
TASK_ID = "01939c5e-8b1d-7f60-a7c2-e4d6b8f0a1c3"
DATA: dict[str, Any] = {
    "task_id": TASK_ID, "pipeline": "thumbnails", "status": "partially_completed",
    "progress": {"completed": 1, "failed": 1, "total": 2},
    "input": {"message": "Zürich 東京 <b>sale</b>\r\nBcc: eve@example.com"}, "error": None,
    "images": [
        {"index": 0, "status": "completed", "prompt": "A <script>", "error": None,
         "url": "https://files.example/1.webp?a=1&b=2", "url_expires_at": "2026-11-27T13:00:00Z"},
        {"index": 1, "status": "failed", "prompt": "B", "url": None, "url_expires_at": None,
         "error": {"code": "out_of_memory", "message": "The device ran out of memory."}},
    ],
    "urls": {"get": f"https://api.example/v1/jobs/{TASK_ID}"},
}  # fmt: skip


def notification(url: str = "mailto:ann@example.org", **data: Any) -> Notification:
    when = datetime(2026, 11, 27, 12, tzinfo=UTC)
    return Notification("msg_1_9", "job.partially_completed", when, DATA | data, url, ("whsec_x",))


def body_of(written: EmailMessage, kind: Literal["plain", "html"]) -> str:
    body = written.get_body((kind,))
    assert isinstance(body, EmailMessage)
    return str(body.get_content())


def open_notifier(
    port: int, security: Security = "none", timeout_s: float = 10, context: ssl.SSLContext | None = None,
    user: str = "", password: str = "", recipients: tuple[str, ...] = (), host: str = "127.0.0.1",
) -> MailNotifier:  # fmt: skip
    server = MailServer(host, port, user, password, security)
    return MailNotifier(
        server, sender=SENDER, recipients=recipients, timeout_s=timeout_s, ssl_context=context
    )


# -- the letter ---------------------------------------------------------------------------------------


def test_a_letter_says_what_happened_in_text_and_in_html() -> None:
    with mail_server() as mailbox:
        assert open_notifier(mailbox.port).send(notification()) == 250
    (envelope,), (written,) = mailbox.envelopes, mailbox.letters
    # Then it goes to one, from one, and its headers hold nothing of the user's
    assert (envelope.mail_from, envelope.rcpt_tos) == ("fanfare@example.com", ["ann@example.org"])
    assert (written["From"], written["To"]) == ("Fanfare <fanfare@example.com>", "ann@example.org")
    assert written["Subject"] == "Fanfare: thumbnails, job partially completed (1 of 2 images)"
    assert (written["Bcc"], written["Auto-Submitted"]) == (None, "auto-generated")
    assert written["Date"].datetime == datetime(2026, 11, 27, 12, tzinfo=UTC)
    # And both of its bodies say the same
    text, html = body_of(written, "plain"), body_of(written, "html")
    for body in (text, html):
        assert f"The job {TASK_ID} (thumbnails) is partially completed." in body
        assert "The device ran out of memory." in body
        assert "The links work until 2026-11-27 13:00 UTC." in body
        assert f"https://api.example/v1/jobs/{TASK_ID}" in body
    assert "Message: Zürich 東京 <b>sale</b> Bcc: eve@example.com\n" in text.replace("\r\n", "\n")
    assert "https://files.example/1.webp?a=1&b=2" in text
    # And the HTML runs nothing and shows what was written
    assert '<a href="https://files.example/1.webp?a=1&amp;b=2">1. A &lt;script&gt;</a>' in html
    assert "<b>" not in html
    assert "<script" not in html
    # And any server takes it
    assert isinstance(envelope.content, bytes)
    assert envelope.content.isascii()
    assert max(len(line) for line in envelope.content.splitlines()) <= 998
    assert mailbox.hellos == ["example.com"]


def test_a_letter_about_files_links_the_good_ones_and_says_why_others_failed() -> None:
    items = [
        {"index": 0, "status": "completed", "filename": "shop.jpg", "source_url": None, "error": None,
         "url": "https://files.example/shop.jpeg"},
        {"index": 1, "status": "failed", "filename": None, "source_url": "https://shop.example/<b>.png",
         "url": None, "error": {"code": "source_unavailable", "message": "shop.example answered 404."}},
    ]  # fmt: skip
    told = notification(pipeline="uploads", images=[], items=items * 15, input={}, output=None,
                        progress={"completed": 60, "failed": 60, "total": 120})  # fmt: skip

    written = letter.write(told, sender=SENDER, recipient="ann@example.org")

    assert written["Subject"].endswith("(60 of 120 files)")
    text, html = body_of(written, "plain"), body_of(written, "html")
    assert "1. shop.jpg\n   https://files.example/shop.jpeg\n" in text
    assert "2. https://shop.example/<b>.png: failed, shop.example answered 404.\n" in text
    assert "... and 100 more files." in text
    assert "https://shop.example/&lt;b&gt;.png" in html


def test_a_letter_about_an_event_says_what_came_out() -> None:
    told = notification(pipeline="triage", images=[], items=[], input={},
                        progress={"completed": 3, "failed": 0, "total": 3},
                        output={"team": "logistics", "reply": {"subject": "Ihr Päckchen"}})  # fmt: skip

    written = letter.write(told, sender=SENDER, recipient="ann@example.org")

    assert written["Subject"].endswith("(3 of 3)")
    text = body_of(written, "plain")
    assert 'team: logistics\nreply: {"subject": "Ihr Päckchen"}\n' in text


def test_the_message_id_is_the_same_each_time_and_another_for_another_reader() -> None:
    def id_of(url: str = "mailto:ann@example.org", **changed: Any) -> object:
        told = replace(notification(url), **changed)
        return letter.write(told, sender=SENDER, recipient=parse_mailto(url))["Message-ID"]

    assert id_of() == id_of(data=DATA | {"status": "completed"})
    assert str(id_of()).startswith("<msg_1_9.")
    assert len({id_of(), id_of("mailto:bob@example.org"), id_of(id="msg_1_8")}) == 3


def test_whatever_a_job_holds_its_letter_can_be_written() -> None:
    image = DATA["images"][0] | {"prompt": "x" * 9000 + "\x00\ud7ff\u2028", "url": "javascript:alert(1)"}
    for data in (
        {"images": [image] * 100},
        {
            "images": [],
            "items": [image] * 100,
            "output": {"a\r\nBcc: eve@x.y": "\x00" * 9000, "b": [None] * 9000},
        },
        {
            "images": [],
            "progress": {"completed": 0, "total": 0},
            "input": {},
            "pipeline": "a\r\nBcc: eve@x.y",
        },
        {"error": {"code": "internal", "message": "a\n.\r\nb"}, "urls": {}},
        dict.fromkeys(DATA),
    ):
        written = letter.write(notification(**data), sender=SENDER, recipient="ann@example.org")
        text = written.as_bytes()
        assert b"\nBcc" not in text
        assert b'href=3D"javascript' not in text
        assert len(text) < 60_000


# -- who may be written to ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "mailto:", "mailto:ann", "mailto:@example.com", "mailto:ann@", "mailto:ann@localhost",
        "mailto:ann@example.com,bob@example.com", "mailto:ann@example.com?bcc=bob@example.com",
        "mailto:ann@example.com%0d%0aBcc:bob@example.com", "mailto:ann@example.com\r\nBcc: bob@example.com",
        "mailto:ann@example.com\n", "mailto: ann@example.com", 'mailto:"ann x"@example.com',
        "mailto:Ann <ann@example.com>", "mailto:ann@[127.0.0.1]", "mailto:ann@127.0.0.1",
        "mailto:a..b@example.com", "mailto:.a@example.com", "mailto:ann@-example.com",
        "mailto:ann@example..com", "mailto:ännchen@example.com",
        "mailto:ann@bücher.example", f"mailto:{'a' * 65}@example.com", f"mailto:a@{'b.' * 130}example",
        "mailto://ann@example.com", "mailto:ann@example.com/", "https://example.com/",
    ],
)  # fmt: skip
def test_what_is_no_single_plain_address_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        open_notifier(1).check_target(url)
    with pytest.raises(TargetRefused):
        open_notifier(1).send(notification(url))


def test_addresses_as_people_have_them_are_taken() -> None:
    for address in ("ann@example.com", "Ann.O'Neil+shop@mail.example.co.uk", "a@xn--bcher-kva.example"):
        open_notifier(1).check_target(f"mailto:{address}")
        assert parse_mailto(f"MAILTO:{address}") == address


@pytest.mark.parametrize("allowed", ["ann@example.org", "Example.ORG", "@example.org"])
def test_only_those_who_may_be_are_written_to(allowed: str) -> None:
    notifier = open_notifier(1, recipients=("bob@example.com", allowed))
    for url in ("mailto:ann@example.org", "mailto:ANN@EXAMPLE.org", "mailto:bob@example.com"):
        notifier.check_target(url)
    for url in ("mailto:eve@example.com", "mailto:ann@mail.example.org", "mailto:ann@badexample.org"):
        with pytest.raises(TargetRefused, match="doesn't write to this address"):
            notifier.check_target(url)
        with pytest.raises(TargetRefused):
            notifier.send(notification(url))


def test_the_scheme_says_who_delivers() -> None:
    notifier: Notifier = SchemeNotifier({"mailto": NoMail()}, otherwise=NullNotifier())
    notifier.check_target("https://example.com/")
    assert notifier.send(notification("https://example.com/")) is None
    for url in ("mailto:ann@example.org", "MailTo:ann@example.org"):
        with pytest.raises(TargetRefused, match="sends no e-mail"):
            notifier.check_target(url)
        with pytest.raises(TargetRefused, match="sends no e-mail"):
            notifier.send(notification(url))


# -- what the server says -----------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["recipient", "letter"])
def test_4xx_is_for_now_and_5xx_for_good(whom: str) -> None:
    with mail_server() as mailbox:
        answers = mailbox.to_recipient if whom == "recipient" else mailbox.to_letter
        notifier = open_notifier(mailbox.port)
        answers.append("451 4.3.0 the disk of mx3.internal is full")
        with pytest.raises(DeliveryFailed) as later:
            notifier.send(notification())
        answers.append("550 5.1.1 nobody of that name")
        with pytest.raises(TargetRefused) as never:
            notifier.send(notification())
        assert notifier.send(notification()) == 250
    # Then what the server says beside its status is nobody's business
    assert (later.value.status_code, never.value.status_code) == (451, 550)
    assert later.value.detail.startswith("The mail server answered 451 to th")
    assert "internal" not in later.value.detail


def test_a_server_that_is_away_or_talks_nonsense_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(DeliveryFailed, match="could not be reached"):
        open_notifier(port).send(notification())
    with pytest.raises(DeliveryFailed, match="could not be looked up"):
        open_notifier(25, host="mail.invalid").send(notification())
    for said, told in (
        (b"", "could not be reached, or broke off"),
        (b"421 too busy\r\n", "answered 421"),
        (b"554 go away\r\n", "answered 554"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "The mail server"),
        (b"\xff\x00\r\n", "The mail server"),
        (b"220 " + b"x" * 100_000, "The mail server"),
    ):
        with saying(said) as port, pytest.raises(DeliveryFailed, match=told):
            open_notifier(port).send(notification())


def test_a_server_that_drips_gets_its_time_and_no_more() -> None:
    both: tuple[Security, Security] = ("none", "tls")
    for security in both:
        with saying(b"220-" + b"x" * 10_000, drip_s=0.05) as port:
            begun = time.monotonic()
            with pytest.raises(DeliveryFailed):
                open_notifier(port, security, timeout_s=0.5).send(notification())
            assert time.monotonic() - begun < 5
    with saying(b"", hold=True) as port, pytest.raises(DeliveryFailed, match="did not answer in time"):
        open_notifier(port, timeout_s=0.3).send(notification())


def test_a_server_that_breaks_off_after_it_took_the_letter_has_it() -> None:
    def conversation(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        connection.sendall(b"220 hello\r\n")
        for _ in range(4):  # EHLO, MAIL, RCPT, DATA
            said = lines.readline()
            connection.sendall(b"354 go on\r\n" if said.upper().startswith(b"DATA") else b"250 OK\r\n")
        while lines.readline().strip() != b".":
            pass
        connection.sendall(b"250 OK\r\n")  # and hangs up

    with serving(conversation) as port:
        assert open_notifier(port).send(notification()) == 250


# -- TLS and login ------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_letter_goes_over_tls_after_a_login(
    authority: trustme.CA, trusting: ssl.SSLContext, security: Security
) -> None:
    context = certified(authority, "127.0.0.1")
    given: dict[str, Any] = {"starttls": context} if security == "starttls" else {"tls": context}
    with mail_server(**given, with_login=True) as mailbox:
        right = open_notifier(mailbox.port, security, context=trusting, user=USER, password=PASSWORD)
        wrong = open_notifier(mailbox.port, security, context=trusting, user=USER, password="guess")
        assert right.send(notification()) == 250
        with pytest.raises(DeliveryFailed, match="refused the user or the password") as refused:
            wrong.send(notification())
    assert (len(mailbox.letters), refused.value.status_code) == (1, 535)
    assert security == "tls" or mailbox.was_secured == [True]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_for_another_name_or_by_nobody_gets_no_letter_and_no_password(
    authority: trustme.CA, trusting: ssl.SSLContext, security: Security
) -> None:
    for name, context in (("other.example", trusting), ("127.0.0.1", ssl.create_default_context())):
        certificate = certified(authority, name)
        given: dict[str, Any] = {"starttls": certificate} if security == "starttls" else {"tls": certificate}
        with mail_server(**given) as mailbox, pytest.raises(DeliveryFailed, match="certificate"):
            open_notifier(mailbox.port, security, context=context, user=USER, password=PASSWORD).send(
                notification()
            )
        assert mailbox.envelopes == []


def test_no_letter_goes_in_the_clear_where_tls_is_wanted() -> None:
    with mail_server() as mailbox, pytest.raises(DeliveryFailed, match="no STARTTLS"):
        open_notifier(mailbox.port, "starttls").send(notification())
    assert mailbox.envelopes == []


# -- servers that misbehave ---------------------------------------------------------------------------


@contextmanager
def serving(talk: Any) -> Iterator[int]:
    """A port of the loopback; what comes to it is talked to, one after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextmanager
def saying(said: bytes, *, drip_s: float = 0, hold: bool = False) -> Iterator[int]:
    """A port that says these bytes, and hangs up or keeps quiet."""

    def talk(connection: socket.socket) -> None:
        if drip_s:
            for byte in said:
                connection.sendall(bytes([byte]))
                time.sleep(drip_s)
        connection.sendall(said)
        if hold:
            connection.recv(100)

    with serving(talk) as port:
        yield port


def test_the_server_here_is_one() -> None:
    with mail_server() as mailbox, smtplib.SMTP("127.0.0.1", mailbox.port) as client:
        client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nhello")
    assert mailbox.letters[0]["Subject"] == "x"

"""A mail server that really listens, for the tests."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "fanfare", "secret"


@dataclass
class Mailbox:
    """Where the server listens, what it says, and what it has got."""

    port: int = 0
    to_recipient: list[str] = field(default_factory=list)  # one answer for each RCPT; then 250
    to_letter: list[str] = field(default_factory=list)  # one answer for each letter; then 250
    envelopes: list[Envelope] = field(default_factory=list)
    hellos: list[str] = field(default_factory=list)
    was_secured: list[bool] = field(default_factory=list)

    @property
    def letters(self) -> list[EmailMessage]:
        """What came, taken apart."""
        found = [message_from_bytes(one.content or b"", policy=default) for one in self.envelopes]  # type: ignore[arg-type]
        assert all(isinstance(one, EmailMessage) for one in found)
        return found

    # -- hooks of aiosmtpd ----------------------------------------------------------------------------

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.hellos.append(hostname)
        return responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.to_recipient.pop(0) if self.to_recipient else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.was_secured.append(session.ssl is not None)
        self.envelopes.append(envelope)
        return self.to_letter.pop(0) if self.to_letter else "250 OK"


def _authenticate(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
) -> AuthResult:
    assert isinstance(data, LoginPassword)
    is_right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


@contextmanager
def mail_server(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, with_login: bool = False
) -> Iterator[Mailbox]:
    """A server on a free port of the loopback."""
    mailbox = Mailbox()
    options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": False}
    if starttls:
        options |= {"tls_context": starttls, "require_starttls": True}
    if with_login:
        options |= {
            "authenticator": _authenticate,
            "auth_required": tls is None,
            "auth_require_tls": tls is None,
        }
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    mailbox.port = listener.getsockname()[1]
    loop.run_until_complete(
        loop.create_server(lambda: SMTP(mailbox, loop=loop, **options), sock=listener, ssl=tls)
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield mailbox
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        listener.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

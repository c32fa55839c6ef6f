"""Hands letters to a mail server: within one deadline, whatever it does, and over TLS that is checked."""

import io
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

from backend.errors import DeliveryFailed, NotifyError, TargetRefused
from backend.notify.addresses import LookupUnavailable, NameNotFound, resolve
from backend.notify.connection import Deadline

Security = Literal["starttls", "tls", "none"]
ACCEPTED = 250


@dataclass(frozen=True)
class MailServer:
    """The operator's own: where it is, unlike a webhook's receiver, is nobody's secret and not checked."""

    host: str
    port: int
    user: str
    password: str
    security: Security


def send(
    server: MailServer,
    *,
    sender: str,
    recipient: str,
    letter: bytes,
    hello: str,
    deadline: Deadline,
    ssl_context: ssl.SSLContext,
) -> int:
    """The server's status, once it has the letter. `hello`: the name of ours that it is told.

    Raises `DeliveryFailed` (4xx, away, not as it is configured) or `TargetRefused` (5xx about this letter).
    """
    with _translated():
        client = _Client(server, hello, deadline, ssl_context)
        try:
            client.begin()
            client.sendmail(sender, [recipient], letter)
        finally:
            client.leave()
    return ACCEPTED


def check(server: MailServer, *, hello: str, deadline: Deadline, ssl_context: ssl.SSLContext) -> None:
    """Greets it, secures the connection and logs in, and sends nothing. Raises as `send`."""
    with _translated():
        client = _Client(server, hello, deadline, ssl_context)
        try:
            client.begin()
            client.ehlo_or_helo_if_needed()
        finally:
            client.leave()


class _Client(smtplib.SMTP):
    """smtplib's, on a wire of ours: its own timeout is for each read, and who drips holds it for ever."""

    def __init__(
        self, server: MailServer, hello: str, deadline: Deadline, ssl_context: ssl.SSLContext
    ) -> None:
        self._server, self._deadline, self._ssl_context = server, deadline, ssl_context
        # Without a host it connects to nothing yet; without a name it would ask the DNS for ours.
        super().__init__(local_hostname=hello)

    def begin(self) -> None:
        """Connects, secures and logs in."""
        self._host = self._server.host  # the name that the certificate is for
        code, message = self.connect(self._server.host, self._server.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, message)
        if self._server.security == "starttls":
            self.starttls(context=cast("ssl.SSLContext", _Securing(self._ssl_context)))
        if self._server.user:
            self.login(self._server.user, self._server.password)

    def leave(self) -> None:
        """Says goodbye. What the server does then is of no interest: it has the letter, or it hasn't."""
        with suppress(smtplib.SMTPException, OSError):
            if self.sock is not None:
                self.docmd("QUIT")
        self.close()

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:  # noqa: ANN401, ARG002 - smtplib's
        wire = _Wire(_connect(host, port, self._deadline), self._deadline)
        return wire.secured(self._ssl_context, host) if self._server.security == "tls" else wire


class _Securing:
    """What `starttls` takes for a context: it secures wires."""

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._ssl_context = ssl_context

    def wrap_socket(self, wire: "_Wire", server_hostname: str) -> "_Wire":
        return wire.secured(self._ssl_context, server_hostname)


class _Wire:
    """As much of a socket as smtplib uses; each step gets only the time that is left."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def secured(self, ssl_context: ssl.SSLContext, host: str) -> "_Wire":
        """The same inside TLS, the certificate checked against `host`."""
        try:
            self._sock.settimeout(self._deadline.left())
            return _Wire(ssl_context.wrap_socket(self._sock, server_hostname=host), self._deadline)
        except BaseException:
            self._sock.close()
            raise

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self._deadline.left())
            rest = rest[self._sock.send(rest) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a buffer
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


def _connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """To the first of its addresses that answers; each gets its share of the time that is left."""
    addresses = resolve(host, timeout_s=deadline.left())
    failure: OSError = ConnectionError("no address")
    for tried, address in enumerate(addresses):
        share = deadline.left() / (len(addresses) - tried)
        try:
            return socket.create_connection((str(address), port), timeout=share)
        except OSError as exc:
            failure = exc
    raise failure


# -- what goes wrong ----------------------------------------------------------------------------------


@contextmanager
def _translated() -> Iterator[None]:
    """In words for the one who asked for the letter: what the server says beside its status is not told."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as exc:
        raise DeliveryFailed(
            "The mail server refused the user or the password.", status_code=exc.smtp_code
        ) from exc
    except smtplib.SMTPNotSupportedError as exc:
        raise DeliveryFailed("The mail server has no STARTTLS, or no login that is known here.") from exc
    except smtplib.SMTPRecipientsRefused as exc:
        (code, _), *_ = exc.recipients.values()
        raise _refusal(code, "to this recipient") from exc
    except smtplib.SMTPSenderRefused as exc:
        raise _refusal(exc.smtp_code, "to the sender") from exc
    except smtplib.SMTPDataError as exc:
        raise _refusal(exc.smtp_code, "to the letter") from exc
    except smtplib.SMTPResponseException as exc:  # before there was a letter: another time it may be better
        raise DeliveryFailed(f"The mail server answered {exc.smtp_code}.", status_code=_status(exc)) from exc
    except (NameNotFound, LookupUnavailable) as exc:
        raise DeliveryFailed("The mail server's name could not be looked up.") from exc
    except ssl.SSLCertVerificationError as exc:
        raise DeliveryFailed("The mail server's TLS certificate is not valid for its name.") from exc
    except (smtplib.SMTPException, OSError) as exc:
        raise DeliveryFailed(_why_away(exc)) from exc


def _refusal(code: int, whom: str) -> NotifyError:
    """5xx is for good, 4xx for now."""
    kind = TargetRefused if 500 <= code < 600 else DeliveryFailed
    return kind(f"The mail server answered {code} {whom}.", status_code=code)


def _status(exc: smtplib.SMTPResponseException) -> int | None:
    return exc.smtp_code if 200 <= exc.smtp_code < 600 else None


def _why_away(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError) or isinstance(exc.__context__, TimeoutError):
        return "The mail server did not answer in time."
    if isinstance(exc, ssl.SSLError):
        return "No TLS connection could be made with the mail server."
    return "The mail server could not be reached, or broke off."

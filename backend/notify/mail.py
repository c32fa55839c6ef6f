"""Delivers notifications as e-mails, by a mail server of the operator's."""

import ssl
from collections.abc import Sequence
from email.headerregistry import Address

import httpx

from backend.errors import TargetRefused
from backend.notify import letter, smtp
from backend.notify.base import Notification
from backend.notify.connection import Deadline
from backend.notify.mailto import is_allowed, parse_mailto
from backend.notify.smtp import MailServer


class MailNotifier:
    """Writes to `mailto:` targets. May be used by many threads at once."""

    name = "mail"

    def __init__(
        self,
        server: MailServer,
        *,
        sender: Address,
        recipients: Sequence[str],
        timeout_s: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`recipients`: addresses and domains that may be written to; none: everybody. `timeout_s` bounds a
        whole delivery, from the look-up of the server's name to its word that it has the letter.
        """
        self._server = server
        self._sender = sender
        self._recipients = tuple(recipients)
        self._timeout_s = timeout_s
        self._ssl_context = ssl_context or httpx.create_ssl_context()  # as webhooks have it

    def check_target(self, url: str) -> None:
        """Refuses what is no address, or not among those that may be written to. Nobody is asked."""
        self._recipient(url)

    def check(self) -> None:
        """Raises `NotifyError` if the mail server takes no letters of ours. None is sent."""
        smtp.check(
            self._server, hello=self._sender.domain, deadline=Deadline(self._timeout_s),
            ssl_context=self._ssl_context,
        )  # fmt: skip

    def send(self, notification: Notification) -> int:
        """Hands over one letter; the mail server's status. Whether it will be read is not known then."""
        recipient = self._recipient(notification.url)
        written = letter.write(notification, sender=self._sender, recipient=recipient)
        return smtp.send(
            self._server, sender=self._sender.addr_spec, recipient=recipient, letter=written.as_bytes(),
            hello=self._sender.domain, deadline=Deadline(self._timeout_s), ssl_context=self._ssl_context,
        )  # fmt: skip

    def _recipient(self, url: str) -> str:
        recipient = parse_mailto(url)
        if not is_allowed(recipient, self._recipients):
            raise TargetRefused("This server doesn't write to this address.")
        return recipient


class NoMail:
    """For servers that have no mail server: they write to nobody, and say so."""

    name = "no mail"

    def check_target(self, url: str) -> None:  # noqa: ARG002 - the port's
        """Always refuses."""
        raise TargetRefused("This server sends no e-mail: mailto: can't be used here.")

    def send(self, notification: Notification) -> int | None:  # noqa: ARG002 - the port's
        """Always refuses: a target from when there was a mail server."""
        raise TargetRefused("This server sends no e-mail any more.")

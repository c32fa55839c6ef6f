"""Delivers notifications as Standard Webhooks: signed, to public addresses, within one deadline."""

import json
import ssl
from datetime import UTC, datetime

import httpcore
from standardwebhooks import Webhook

from backend import retry_after
from backend.errors import DeliveryFailed, TargetGone
from backend.notify.addresses import LookupUnavailable, NameNotFound, Resolver, system_resolver
from backend.notify.base import Notification
from backend.notify.connection import Deadline
from backend.notify.gate import Gate

USER_AGENT = "Fanfare-Webhooks/1"
_GONE = 410


class WebhookNotifier:
    """Posts each notification to its URL; never follows a redirect, never uses a proxy."""

    name = "webhook"

    def __init__(
        self,
        *,
        timeout_s: float,
        allow_private: bool,
        allow_http: bool,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`timeout_s` bounds a whole delivery, from the look-up of the name to the status of the answer."""
        self._timeout_s = timeout_s
        self._gate = Gate(
            allow_private=allow_private, allow_http=allow_http, resolver=resolver, ssl_context=ssl_context
        )

    def check_target(self, url: str) -> None:
        """Refuses what could never be called. Takes 2 s at most.

        A name that doesn't exist is refused; where the look-up itself fails, the URL gets the benefit of
        the doubt, and `send` decides.
        """
        self._gate.check(url, timeout_s=self._timeout_s)

    def send(self, notification: Notification) -> int:
        """Delivers once; the status of the answer. What the receiver says beside its status is not read."""
        deadline = Deadline(self._timeout_s)
        target = self._gate.parse(notification.url)
        body = _body(notification)
        headers = _headers(notification, body)
        try:
            addresses = self._gate.addresses(target, self._timeout_s)
            url, connection = self._gate.connect(target, addresses, deadline)
            fields = [("Host", target.authority), *headers.items()]
            with connection, connection.stream("POST", url, headers=fields, content=body) as response:
                status, asked_s = response.status, retry_after.asked_by(response.headers)
        except NameNotFound as exc:
            raise DeliveryFailed(f"The host {target.host} does not resolve.") from exc
        except LookupUnavailable as exc:
            raise DeliveryFailed(f"The host {target.host} could not be looked up.") from exc
        except httpcore.TimeoutException as exc:
            raise DeliveryFailed(f"The receiver did not answer within {self._timeout_s:g} s.") from exc
        except httpcore.NetworkError as exc:
            raise DeliveryFailed(_why_unreachable(exc)) from exc
        except httpcore.ProtocolError as exc:
            raise DeliveryFailed("The receiver's answer was not valid HTTP.") from exc
        _judge(status, asked_s)
        return status


def _body(notification: Notification) -> bytes:
    """Compact JSON: these very bytes are signed and sent."""
    when = notification.timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z")
    payload = {"type": notification.type, "timestamp": when, "data": notification.data}
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _headers(notification: Notification, body: bytes) -> dict[str, str]:
    """The signature is of the moment of this attempt: receivers refuse what is older than 5 minutes."""
    now = datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Accept": "*/*",
        "Connection": "close",
        "webhook-id": notification.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": _signatures(notification, now, body),
    }


def _signatures(notification: Notification, now: datetime, body: bytes) -> str:
    """By each secret, with spaces between them: a receiver takes the message if it knows one."""
    return " ".join(
        Webhook(secret).sign(notification.id, now, body.decode()) for secret in notification.secrets
    )


def _why_unreachable(exc: httpcore.NetworkError) -> str:
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return "The receiver's TLS certificate is not valid for its name."
    if isinstance(exc.__cause__, ssl.SSLError):
        return "No TLS connection could be made with the receiver."
    if isinstance(exc, httpcore.ConnectError):
        return "The receiver could not be reached."
    return "The connection to the receiver broke off."


def _judge(status: int, asked_s: int | None) -> None:
    if 200 <= status < 300:
        return
    if status == _GONE:
        raise TargetGone(status_code=status)
    if 300 <= status < 400:
        raise DeliveryFailed(
            f"The receiver answered {status}; redirects are not followed.", status_code=status
        )
    raise DeliveryFailed(f"The receiver answered {status}.", status_code=status, retry_after_s=asked_s)

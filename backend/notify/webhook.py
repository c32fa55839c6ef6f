"""Delivers notifications as Standard Webhooks: signed, to public addresses, within one deadline."""

import json
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime

import httpcore
import httpx
from standardwebhooks import Webhook

from backend.errors import DeliveryFailed, TargetGone, TargetRefused
from backend.notify.addresses import (
    IPAddress,
    LookupUnavailable,
    NameNotFound,
    Resolver,
    is_allowed,
    resolve,
    system_resolver,
)
from backend.notify.base import Notification
from backend.notify.connection import CheckedBackend, Deadline
from backend.notify.target import Target, parse_target

USER_AGENT = "Fanfare-Webhooks/1"
LOOKUP_AT_SUBMIT_S = 2.0
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
        self._allow_private = allow_private
        self._allow_http = allow_http
        self._resolver = resolver
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    def check_target(self, url: str) -> None:
        """Refuses what could never be called. Takes 2 s at most.

        A name that doesn't exist is refused; where the look-up itself fails, the URL gets the benefit of
        the doubt, and `send` decides.
        """
        target = parse_target(url, allow_http=self._allow_http)
        try:
            self._addresses(target, min(LOOKUP_AT_SUBMIT_S, self._timeout_s))
        except NameNotFound as exc:
            raise TargetRefused(f"The host {target.host} does not resolve.") from exc
        except LookupUnavailable:
            return

    def send(self, notification: Notification) -> None:
        """Delivers once. What the receiver says beside its status is not read."""
        deadline = Deadline(self._timeout_s)
        target = parse_target(notification.url, allow_http=self._allow_http)
        body = _body(notification)
        headers = _headers(notification, body)
        try:
            addresses = self._addresses(target, self._timeout_s)
            status = self._post(target, headers, body, CheckedBackend(addresses, deadline))
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
        _judge(status)

    def _addresses(self, target: Target, timeout_s: float) -> Sequence[IPAddress]:
        """Where the target may be reached. One forbidden address among several spoils them all."""
        addresses = resolve(target.host, timeout_s=timeout_s, resolver=self._resolver)
        if not all(is_allowed(address, allow_private=self._allow_private) for address in addresses):
            raise TargetRefused(f"{target.host} is not on the public internet.")
        return addresses

    def _post(self, target: Target, headers: dict[str, str], body: bytes, backend: CheckedBackend) -> int:
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        connection = httpcore.HTTPConnection(
            url.origin, ssl_context=self._ssl_context, network_backend=backend
        )
        fields = [("Host", target.authority), *headers.items()]
        with connection, connection.stream("POST", url, headers=fields, content=body) as response:
            return response.status


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
        "webhook-signature": Webhook(notification.secret).sign(notification.id, now, body.decode()),
    }


def _why_unreachable(exc: httpcore.NetworkError) -> str:
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return "The receiver's TLS certificate is not valid for its name."
    if isinstance(exc.__cause__, ssl.SSLError):
        return "No TLS connection could be made with the receiver."
    if isinstance(exc, httpcore.ConnectError):
        return "The receiver could not be reached."
    return "The connection to the receiver broke off."


def _judge(status: int) -> None:
    if 200 <= status < 300:
        return
    if status == _GONE:
        raise TargetGone
    if 300 <= status < 400:
        raise DeliveryFailed(f"The receiver answered {status}; redirects are not followed.")
    raise DeliveryFailed(f"The receiver answered {status}.")

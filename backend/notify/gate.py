"""The way out to URLs that users give: to public addresses only, and to those that were checked."""

import ssl
from collections.abc import Sequence

import httpcore
import httpx

from backend.errors import TargetRefused
from backend.notify.addresses import (
    IPAddress,
    LookupUnavailable,
    NameNotFound,
    Resolver,
    is_allowed,
    resolve,
    system_resolver,
)
from backend.notify.connection import CheckedBackend, Deadline
from backend.notify.target import Target, parse_target

LOOKUP_AT_SUBMIT_S = 2.0


class Gate:
    """Knows what may be reached. May be used by many threads at once."""

    def __init__(
        self,
        *,
        allow_private: bool,
        allow_http: bool,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._allow_http = allow_http
        self._resolver = resolver
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    def parse(self, url: str) -> Target:
        """The URL, taken apart. Raises `TargetRefused`."""
        return parse_target(url, allow_http=self._allow_http)

    def check(self, url: str, *, timeout_s: float) -> None:
        """Refuses what could never be reached, by `TargetRefused`. Takes 2 s, or `timeout_s`, at most.

        A name that doesn't exist is refused; where the look-up itself fails, the URL gets the benefit of
        the doubt.
        """
        target = self.parse(url)
        try:
            self.addresses(target, min(LOOKUP_AT_SUBMIT_S, timeout_s))
        except NameNotFound as exc:
            raise TargetRefused(f"The host {target.host} does not resolve.") from exc
        except LookupUnavailable:
            return

    def addresses(self, target: Target, timeout_s: float) -> Sequence[IPAddress]:
        """Where the target may be reached. One forbidden address among several spoils them all.

        Raises `TargetRefused`, `NameNotFound` or `LookupUnavailable`.
        """
        addresses = resolve(target.host, timeout_s=timeout_s, resolver=self._resolver)
        if not all(is_allowed(address, allow_private=self._allow_private) for address in addresses):
            raise TargetRefused(f"{target.host} is not on the public internet.")
        return addresses

    def connect(
        self, target: Target, addresses: Sequence[IPAddress], deadline: Deadline
    ) -> tuple[httpcore.URL, httpcore.HTTPConnection]:
        """The URL to ask for, and a connection, to be closed, that goes to these addresses alone."""
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        backend = CheckedBackend(addresses, deadline)
        connection = httpcore.HTTPConnection(
            url.origin, ssl_context=self._ssl_context, network_backend=backend
        )
        return url, connection

"""Fetches what a user's URL leads to: from public addresses only, up to a size, within one deadline."""

import ssl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpcore
import httpx

from backend import retry_after
from backend.errors import ReferenceAway, ReferenceRefused, ReferenceUnavailable, TargetRefused
from backend.notify.addresses import LookupUnavailable, NameNotFound, Resolver, system_resolver
from backend.notify.connection import Deadline
from backend.notify.gate import Gate
from backend.notify.target import Target

USER_AGENT = "Fanfare/1"
MAX_REDIRECTS = 3  # each of them is checked as the first URL was

_GZIP = {"gzip", "x-gzip"}
_GZIP_MAGIC = b"\x1f\x8b"
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Downloader:
    """Makes plain GETs; never uses a proxy, never sends a cookie or a key."""

    def __init__(
        self,
        *,
        timeout_s: float,
        max_bytes: int,
        allow_private: bool,
        allow_http: bool,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`timeout_s` bounds a whole download, from the look-up of the name to the last byte."""
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._gate = Gate(
            allow_private=allow_private, allow_http=allow_http, resolver=resolver, ssl_context=ssl_context
        )

    def check(self, url: str) -> None:
        """Refuses what could never be fetched, by `TargetRefused`. Takes 2 s at most.

        A name that doesn't exist is refused; where the look-up itself fails, `fetch` decides.
        """
        self._gate.check(url, timeout_s=self._timeout_s)

    def fetch(self, url: str) -> bytes:
        """The bytes. Raises `ReferenceAway` (try again), `ReferenceUnavailable` or `ReferenceRefused`."""
        deadline = Deadline(self._timeout_s)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                found = self._get(self._gate.parse(url), deadline)
            except TargetRefused as exc:
                raise ReferenceRefused(exc.detail) from exc
            if isinstance(found, bytes):
                return found
            url = _joined(url, found.location)
        raise ReferenceUnavailable("The URL is redirected too often.")

    def _get(self, target: Target, deadline: Deadline) -> "bytes | _Redirect":
        fields = [
            ("Host", target.authority),
            ("User-Agent", USER_AGENT),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),  # what is counted is what is kept
            ("Connection", "close"),
        ]
        with _translated(target.host):
            addresses = self._gate.addresses(target, deadline.left())
            url, connection = self._gate.connect(target, addresses, deadline)
            with connection, connection.stream("GET", url, headers=fields) as response:
                if response.status in _REDIRECTS:
                    return _Redirect(_header(response, b"location"))
                _judge(response, target.host)
                return self._read(response)

    def _read(self, response: httpcore.Response) -> bytes:
        declared = _header(response, b"content-length")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large()
        is_packed = _header(response, b"content-encoding").strip().lower() in _GZIP
        return self._unpacked(data) if is_packed and data.startswith(_GZIP_MAGIC) else bytes(data)

    def _unpacked(self, data: bytearray) -> bytes:
        """What a server has packed that was asked not to."""
        unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            unpacked = unpacking.decompress(data, self._max_bytes + 1)
        except zlib.error as exc:
            raise ReferenceAway("What was sent is packed, and can't be unpacked.") from exc
        if len(unpacked) > self._max_bytes:
            raise self._too_large()
        if not unpacking.eof:
            raise ReferenceAway("What was sent is packed, and ends too soon.")
        return unpacked

    def _too_large(self) -> ReferenceRefused:
        return ReferenceRefused(f"It is larger than the {self._max_bytes} bytes that are taken.")


class _Redirect:
    def __init__(self, location: str) -> None:
        self.location = location


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Turns what goes wrong on the network into words for the one who gave the URL."""
    try:
        yield
    except NameNotFound as exc:
        raise ReferenceUnavailable(f"The host {host} does not resolve.") from exc
    except LookupUnavailable as exc:
        raise ReferenceAway(f"The host {host} could not be looked up.") from exc
    except (httpcore.TimeoutException, TimeoutError) as exc:
        raise ReferenceAway(f"{host} did not send it in time.") from exc
    except httpcore.NetworkError as exc:
        if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
            raise ReferenceUnavailable(f"The TLS certificate of {host} is not valid for its name.") from exc
        raise ReferenceAway(f"{host} could not be reached, or broke off.") from exc
    except httpcore.ProtocolError as exc:
        raise ReferenceAway(f"The answer of {host} was not valid HTTP.") from exc


def _judge(response: httpcore.Response, host: str) -> None:
    status = response.status
    if status == HTTPStatus.OK:
        return
    if status >= 500 or status in _PASSING:
        raise ReferenceAway(
            f"{host} answered {status}.",
            retry_after_s=retry_after.asked_by(response.headers),
            asked_too_often=status == HTTPStatus.TOO_MANY_REQUESTS,
        )
    raise ReferenceUnavailable(f"{host} answered {status}.")


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _joined(url: str, location: str) -> str:
    try:
        return str(httpx.URL(url).join(location))
    except httpx.InvalidURL as exc:
        raise ReferenceUnavailable("The URL is redirected to one that is not valid.") from exc

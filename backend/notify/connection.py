"""Connects to addresses that were checked, and to no other, until one deadline."""

# ruff: noqa: ARG002 - the signatures are httpcore's

import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpcore

from backend.notify.addresses import IPAddress


class Deadline:
    """A moment that no operation outlives, however many of them there are."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left. Raises `TimeoutError` when there are none."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@contextmanager
def _translated(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise late from exc
    except OSError as exc:
        raise failed from exc


class CheckedBackend(httpcore.NetworkBackend):
    """Opens connections for httpcore to the given addresses, whatever name the URL has.

    The name still goes into the Host header and into TLS, where the certificate is checked against it.
    """

    def __init__(self, addresses: Sequence[IPAddress], deadline: Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Tries one address after the other; each gets its share of the time that is left."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            return DeadlineStream(self._connect(port), self._deadline)

    def _connect(self, port: int) -> socket.socket:
        failure: OSError = ConnectionError("no address")
        for tried, address in enumerate(self._addresses):
            share = self._deadline.left() / (len(self._addresses) - tried)
            try:
                return socket.create_connection((str(address), port), timeout=share)
            except OSError as exc:
                failure = exc
        raise failure


class DeadlineStream(httpcore.NetworkStream):
    """A socket whose every step gets only the time that is left: dripped bytes buy nobody more."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come in, at most `max_bytes`; empty at the end."""
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._sock.settimeout(self._deadline.left())
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of it."""
        rest = memoryview(buffer)
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            while rest:
                self._sock.settimeout(self._deadline.left())
                rest = rest[self._sock.send(rest) :]

    def close(self) -> None:
        """Ends the connection."""
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same stream inside TLS, the certificate checked against `server_hostname`."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                self._sock.settimeout(self._deadline.left())
                inside = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
            except BaseException:
                self._sock.close()
                raise
        return DeadlineStream(inside, self._deadline)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        """What httpcore asks of a stream; `ssl_object` is not offered, so HTTP/1.1 it is."""
        return self._sock if info == "socket" else None

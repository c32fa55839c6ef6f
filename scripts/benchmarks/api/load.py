"""A client that costs little: kept connections, one request under way on each, and no more HTTP."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "


class Refused(Exception):
    """The server closed a connection, or answered with another status than the one expected."""


@dataclass(frozen=True)
class Ask:
    """One request, as bytes, and the status that it should be answered with."""

    data: bytes
    status: int


def request(
    url: str, method: str, path: str, status: int, *, headers: dict[str, str] | None = None, body: bytes = b""
) -> Ask:
    """A request to the server at `url`."""
    given = {"Host": urlsplit(url).netloc} | (headers or {})
    if body:
        given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return Ask("\r\n".join(lines).encode() + HEAD_END + body, status)


def place_of(url: str) -> tuple[str, int]:
    """Host and port."""
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    return place.hostname, place.port


@dataclass
class Load:
    """So many requests, spread over so many connections: each sends its next when it has its answer."""

    asks: Sequence[Ask]  # sent in turns
    count: int
    latencies: list[float] = field(default_factory=list)  # seconds
    last: bytes = b""  # the newest answer, whole
    sent: int = 0

    async def run(self, url: str, clients: int) -> None:
        """Raises `Refused`."""
        host, port = place_of(url)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        opened = [
            await loop.create_connection(lambda: _Connection(self, done), host, port)
            for _ in range(min(clients, self.count))
        ]
        try:
            for _, connection in opened:
                connection.send()
            await done
        finally:
            for transport, _ in opened:
                transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load, done: "asyncio.Future[None]") -> None:
        self._load, self._done = load, done
        self._buffer = b""
        self._expected = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        """The next of the load's requests, if there is one left."""
        load = self._load
        if load.sent < load.count:
            ask = load.asks[load.sent % len(load.asks)]
            load.sent += 1
            self._expected = ask.status
            self._begun = time.perf_counter()
            self._transport.write(ask.data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(HEAD_END)
        if not found or len(body) < _length(head):
            return
        load = self._load
        load.latencies.append(time.perf_counter() - self._begun)
        load.last, self._buffer = self._buffer, b""
        if int(head[9:12]) != self._expected:
            self._end(Refused(load.last.decode("utf-8", "replace")))
        elif len(load.latencies) == load.count:
            self._end(None)
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if len(self._load.latencies) < self._load.count:
            self._end(Refused(f"a connection was closed: {exc}"))

    def _end(self, failure: Refused | None) -> None:
        if self._done.done():
            return
        if failure is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(failure)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(LENGTH)
    return int(rest.partition(b"\r\n")[0]) if found else 0


def run(url: str, asks: Sequence[Ask], count: int, clients: int) -> Load:
    """The load, done."""
    load = Load(asks, count)
    asyncio.run(load.run(url, clients))
    return load

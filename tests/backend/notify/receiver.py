"""A webhook receiver that really listens, for the tests."""

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import cast


@dataclass
class Received:
    """One request, as it came over the wire."""

    request_line: str
    headers: dict[str, str]  # names in lower case
    body: bytes


Answer = Callable[[socket], None]


def answering(raw: bytes) -> Answer:
    """Says these bytes and hangs up."""
    return lambda connection: connection.sendall(raw)


def status(code: int, *more: str) -> Answer:
    """A plain answer without a body."""
    return answering("\r\n".join([f"HTTP/1.1 {code} X", "Content-Length: 0", *more, "", ""]).encode())


@dataclass
class Receiver:
    """Where it listens, what it says, and what it has heard."""

    port: int = 0
    answer: Answer = field(default_factory=lambda: status(204))
    received: list[Received] = field(default_factory=list)
    connections: int = 0


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    receiver: Receiver
    context: ssl.SSLContext | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or refuses our certificate, is what is tested."""


class _Handler(socketserver.StreamRequestHandler):
    def setup(self) -> None:
        server = cast("_Server", self.server)
        server.receiver.connections += 1
        if server.context:
            self.request = server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        receiver = cast("_Server", self.server).receiver
        receiver.received.append(self._read())
        receiver.answer(self.connection)

    def _read(self) -> Received:
        line, *fields = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ""))
        headers = {name.lower(): value for name, value in (entry.split(": ", 1) for entry in fields)}
        return Received(line, headers, self.rfile.read(int(headers.get("content-length", "0"))))

    def finish(self) -> None:
        super().finish()
        self.request.close()


@contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Listens on a free port of 127.0.0.1, with TLS where a context is given."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.receiver = Receiver(port=server.server_address[1])
        server.context = context
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.receiver
        finally:
            server.shutdown()
            thread.join()

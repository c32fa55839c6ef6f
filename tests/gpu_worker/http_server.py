"""A real HTTP server on loopback that answers as it is told to, well or badly."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request, as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    port: int = 0  # the client's: of one connection


@dataclass
class Answer:
    """What is answered to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0  # before anything is answered
    drip_s: float = 0.0  # between the bytes of the answer, headers and all
    reset: bool = False  # break the connection instead


def as_json(data: Any, status: int = 200, **headers: str) -> Answer:
    head = {
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Answer(status, json.dumps(data).encode(), head)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ScriptedServer"

    def do_GET(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.answer_to(Seen(self.command, self.path, headers, body, self.client_address[1]))
        time.sleep(answer.wait_s)
        if answer.reset:
            self._reset()
        elif answer.drip_s:
            self._drip(answer)
        else:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def _drip(self, answer: Answer) -> None:
        head = f"HTTP/1.1 {answer.status} OK\r\nContent-Length: {len(answer.body)}\r\n"
        text = f"{head}X-Slow: {'x' * 200}\r\n\r\n"
        for byte in text.encode() + answer.body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(answer.drip_s)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


class ScriptedServer(ThreadingHTTPServer):
    """Gives the answers of its script in turn, then the last one for ever; remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self._script: list[Answer | Callable[[Seen], Answer]] = [Answer()]
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def script(self, answers: Sequence[Answer | Callable[[Seen], Answer]]) -> None:
        self._script = list(answers)

    def answer_to(self, seen: Seen) -> Answer:
        with self._lock:
            self.seen.append(seen)
            answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return answer(seen) if callable(answer) else answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of the tests."""

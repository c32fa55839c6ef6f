"""A real HTTP server on loopback that answers as a language model's server does on its bad days."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request, as it arrived."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]

    @property
    def form(self) -> str | None:
        """The type of the `response_format` that was asked for."""
        form: str | None = self.body.get("response_format", {}).get("type")
        return form

    def said(self, role: str) -> list[str]:
        return [turn["content"] for turn in self.body["messages"] if turn["role"] == role]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ScriptedServer"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        seen = Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.server.lock:
            self.server.seen.append(seen)
            step = self.server.script.pop(0) if self.server.script else self.server.otherwise
        try:
            step(self, seen)
        except (ConnectionError, TimeoutError):
            self.server.abandoned.set()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


Step = Callable[[Handler, Seen], None]


class ScriptedServer(ThreadingHTTPServer):
    """Takes one step of its script for each request, then `otherwise`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.seen: list[Seen] = []
        self.script: list[Step] = []
        self.otherwise: Step = status(500, {"error": {"message": "nothing scripted"}})
        self.ended = threading.Event()  # hanging steps wait for it
        self.abandoned = threading.Event()  # a client has gone away amid an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is the point of some tests."""


# -- steps: what one answer looks like -----------------------------------------------------------------


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Listens for the length of the block."""
    server = ScriptedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def raw(code: int, body: bytes, content_type: str = "application/json", **headers: str) -> Step:
    """Any body, as it is. Header names are given with underscores."""

    def step(handler: Handler, seen: Seen) -> None:
        handler.send_response(code)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return step


def status(code: int, body: Any, **headers: str) -> Step:
    """A JSON body under an HTTP status."""
    return raw(code, json.dumps(body).encode(), **headers)


def refused(http: int, message: str, **error: str) -> Step:
    """An error in the usual envelope."""
    return status(http, {"error": {"message": message, **error}})


def completion(content: Any, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
    }


def says(content: Any, finish_reason: str = "stop", **message: Any) -> Step:
    """A completion with this content."""
    return status(200, completion(content, finish_reason, **message))


def prompts(*texts: str) -> Step:
    """A completion as it should be."""
    return says(json.dumps({"prompts": list(texts)}))


def asked_for(seen: Seen) -> int:
    """How many prompts the structured output of a request asks for."""
    schema = seen.body["response_format"]["json_schema"]["schema"]
    return int(schema["properties"]["prompts"]["description"].split()[1])


def obedient(handler: Handler, seen: Seen) -> None:
    """Writes as many prompts as asked for, never the same twice."""
    with handler.server.lock:
        number = handler.server.seen.index(seen)
    texts = [f"picture {number}-{at} of a harbour" for at in range(asked_for(seen))]
    prompts(*texts)(handler, seen)


def hang(handler: Handler, seen: Seen) -> None:
    """Takes the request and says nothing until the client has gone or the server ends."""
    handler.server.ended.wait(10)
    handler.close_connection = True


def drip(handler: Handler, seen: Seen) -> None:
    """A byte at a time, each well within any timeout per read."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        if handler.server.ended.wait(0.02):
            break
    handler.close_connection = True


def drip_headers(handler: Handler, seen: Seen) -> None:
    """As `drip`, but before the body has even begun."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        handler.wfile.write(f"X-{number}: 1\r\n".encode())
        if handler.server.ended.wait(0.02):
            break
    handler.close_connection = True


def reset_amid_body(handler: Handler, seen: Seen) -> None:
    """Half of a body, then a TCP reset."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"message": ')
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def flood(handler: Handler, seen: Seen) -> None:
    """A body without an end, as fast as it goes."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    while not handler.server.ended.is_set():
        handler.wfile.write(b" " * 262_144)

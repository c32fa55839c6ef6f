"""A server that speaks just enough of S3 to be broken in ways in which a good one never is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next part of the script; the last part goes on for ever."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[Answer]]
    seen: ClassVar[list[str]]

    def answer(self) -> None:
        """Takes the body, then does what the script says."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append(f"{self.command} {self.path}")
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        step(self)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def scripted_s3(*script: Answer) -> Iterator[tuple[str, list[str]]]:
    """The server's URL, and the requests that it has seen so far."""
    seen: list[str] = []
    handler = type("Scripted", (Handler,), {"script": list(script), "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; underscores in the headers' names are hyphens."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def fails(status: int, code: str) -> Answer:
    """An error in S3's words."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} in vendor words</Message></Error>"
    return says(status, text.encode(), Content_Type="application/xml")


def cuts(body: bytes, after: int) -> Answer:
    """Announces all of the body and hangs up after some of it."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:after])
        handler.close_connection = True

    return answer


def drips(stop: threading.Event) -> Answer:
    """Sends a byte now and then, so that no timeout per read ever fires."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b"x")
        handler.close_connection = True

    return answer

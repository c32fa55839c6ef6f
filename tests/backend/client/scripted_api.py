"""A small real HTTP server that answers as it is told, cuts connections too, and remembers what came."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TASK_ID = "0199b6a0-0000-7000-8000-000000000001"


@dataclass(frozen=True)
class Request:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer. `promised`: the Content-Length, where it is to be wrong. `cut`: nothing is sent at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    cut: bool = False
    stream: bool = False  # without a length: ends when the connection does


def job(status: str = "pending", images: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    raw = {"task_id": TASK_ID, "pipeline": "thumbnails", "status": status, "images": images or []}
    return raw | {"input": {"message": "m"}, "news_to_us": True} | more


def as_json(data: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(data).encode(), {"Content-Type": "application/json"} | headers)


def events(*parts: str) -> Reply:
    return Reply(200, "".join(parts).encode(), {"Content-Type": "text/event-stream"}, stream=True)


def event(name: str, data: dict[str, Any], number: int | None = None) -> str:
    identity = f"id: {number}\n" if number is not None else ""
    return f"event: {name}\ndata: {json.dumps(data)}\n{identity}\n"


class ScriptedApi:
    """Give each route ("GET /path") its replies; the last one is given again and again."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._replies: dict[str, list[Reply | Callable[[Request], Reply]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, route: str, *replies: Reply) -> None:
        self._replies[route] = list(replies)

    def seen(self, route: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == route]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, request: Request) -> Reply:
        self.requests.append(request)
        replies = self._replies.get(f"{request.method} {request.path}")
        if not replies:
            return as_json({"title": "Not found", "detail": "There is no such thing."}, 404)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply if isinstance(reply, Reply) else reply(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers), body)
                reply = api._next(request)
                self.close_connection = reply.cut or reply.stream or reply.promised is not None
                if reply.cut:
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.stream:
                    self.send_header("Connection", "close")
                else:
                    self.send_header("Content-Length", str(reply.promised or len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = _answer  # noqa: N815 - the base class's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        return Handler

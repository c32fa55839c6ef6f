"""What happens to every request: it gets an id, one line in the log, a few headers, and is counted."""

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("fanfare.access")

Observe = Callable[
    [Scope, int, float], None
]  # the request, its status (0: none), seconds until the answer began

_GIVEN_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


class RequestContext:
    """Pure ASGI, so that streams pass through unharmed."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wraps one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, began = time.perf_counter(), 0, 0.0

        async def send_with_id(message: Message) -> None:
            nonlocal status, began
            if message["type"] == "http.response.start":
                status, began = message["status"], time.perf_counter()
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            ended = time.perf_counter()
            self._observe(scope, status, (began or ended) - started)
            took = (ended - started) * 1000
            log.info("%s %s %s %.0f ms %s", scope["method"], scope["path"], status or "-", took, request_id)


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is a harmless one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _GIVEN_ID.match(text):
                return str(text)
    return uuid.uuid4().hex

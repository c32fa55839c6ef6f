"""Bodies are strict JSON (RFC 8259): no NaN, no bottomless nesting, no halves of characters."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

MAX_DEPTH = 32


class StrictRequest(Request):
    """A request whose `json()` takes only what every other JSON reader would take, too."""

    async def body(self) -> bytes:
        """The body, up to the size that is taken. Raises a 413 for more, without reading on."""
        if not hasattr(self, "_body"):
            limit: int = self.app.state.settings.max_body_bytes
            declared = self.headers.get("content-length", "")
            if declared.isdigit() and int(declared) > limit:
                raise HTTPException(413)
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > limit:
                    raise HTTPException(413)
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body. Raises `json.JSONDecodeError`, which becomes a 400."""
        return strict_json(await self.body())


def strict_json(given: bytes | str) -> Any:  # noqa: ANN401 - JSON
    """What it says. Raises `json.JSONDecodeError`, whatever is wrong with it."""
    try:
        text = given if isinstance(given, str) else given.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        _check(value, MAX_DEPTH)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as exc:
        raise json.JSONDecodeError(str(exc), "", 0) from exc
    return value


class StrictRoute(APIRoute):
    """A route that reads its body by StrictRequest, and only where it says that it is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given our request."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def strict(request: Request) -> Response:
            if takes_body and not is_json(request.headers.get("content-type", "")) and _has_body(request):
                raise HTTPException(415)
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def _has_body(request: Request) -> bool:
    """Whether one comes, or may come."""
    length = request.headers.get("content-length", "0").strip()
    return length != "0" or "transfer-encoding" in request.headers


def is_json(content_type: str) -> bool:
    """Whether it says so."""
    essence = content_type.split(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return value


def _check(value: object, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is no text
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)

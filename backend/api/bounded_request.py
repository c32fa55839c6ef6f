"""A request whose body may be large, and not endless."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend.errors import PayloadTooLarge, UploadTimedOut

IDLE_S = 60  # a connection that is gone without a word is noticed by its silence only
SLOWEST_BYTES_PER_S = 1024  # on the whole: who drips holds a connection and a file for days

_UTF8 = {b"utf-8", b"utf8", b"us-ascii"}


def is_utf8(content_type: str) -> bool:
    """Whether it names no other encoding: Python knows many, and not all make text that can be answered."""
    _, parameters = parse_options_header(content_type)
    return parameters.get(b"charset", b"utf-8").strip().lower() in _UTF8


async def in_time(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same, piece by piece. Raises `UploadTimedOut` for silence, and for drops."""
    started, received = time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                piece = cast("bytes | None", await anext(body, None))
        except TimeoutError:
            raise UploadTimedOut from None
        if piece is None:
            return
        received += len(piece)
        if time.monotonic() - started > IDLE_S + received / SLOWEST_BYTES_PER_S:
            raise UploadTimedOut
        yield piece


class BoundedRequest(Request):
    """A request whose body is read up to a size. Raises `PayloadTooLarge` and `UploadTimedOut`."""

    def __init__(self, request: Request, max_bytes: int, what: str) -> None:
        """`what` it is that may be so large, as in "A table"."""
        super().__init__(request.scope, request.receive)
        self._max_bytes = max_bytes
        self._what = what

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        left = self._max_bytes
        try:
            async for piece in in_time(super().stream()):
                left -= len(piece)
                if left < 0:
                    raise self._too_large()
                yield piece
        except ClientDisconnect:
            raise HTTPException(400) from None  # nobody is there to read it

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"{self._what} may have at most {self._max_bytes} bytes.")

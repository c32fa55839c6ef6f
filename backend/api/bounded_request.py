"""A request whose body may be large, and not endless."""

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend.errors import PayloadTooLarge, UploadTimedOut

IDLE_S = 60  # a connection that is gone without a word is noticed by its silence only


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
        pieces = aiter(super().stream())
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    piece = cast("bytes | None", await anext(pieces, None))
            except TimeoutError:
                raise UploadTimedOut from None
            except ClientDisconnect:
                raise HTTPException(400) from None  # nobody is there to read it
            if piece is None:
                return
            left -= len(piece)
            if left < 0:
                raise self._too_large()
            yield piece

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"{self._what} may have at most {self._max_bytes} bytes.")

"""A response that streams an open file, or a part of it."""

from anyio.to_thread import run_sync
from fastapi import Response
from starlette.types import Receive, Scope, Send

from backend.errors import StorageUnavailable
from backend.storage.local import OpenFile

CHUNK_BYTES = 256 * 1024


class FileResponse(Response):
    """Sends an open file, or a part of it, piece by piece, and closes it whatever happens."""

    def __init__(self, opened: OpenFile, part: range | None, headers: dict[str, str]) -> None:
        size = opened.meta.bytes
        self._opened = opened
        self._part = range(size) if part is None else part
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        headers["Content-Length"] = str(len(self._part))
        super().__init__(
            status_code=200 if part is None else 206, headers=headers, media_type=opened.meta.content_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        """Sends it. HEAD gets the headers alone."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope["method"] == "GET":
                await self._send_pieces(send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._opened.close()

    async def _send_pieces(self, send: Send) -> None:
        for offset in self._part[::CHUNK_BYTES]:
            length = min(CHUNK_BYTES, self._part.stop - offset)
            piece = await run_sync(self._opened.read_at, offset, length)
            if len(piece) < length:
                raise StorageUnavailable("The object has shrunk while it was read.")
            await send({"type": "http.response.body", "body": piece, "more_body": True})

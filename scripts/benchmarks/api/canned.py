"""Answers every request with the same bytes at once: how fast the client is, held up by no server."""

import asyncio

from backend.settings import get_settings

BODY = b'{"ready":true,"padding":"' + b"x" * 8000 + b'"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class _Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(ANSWER)


async def main() -> None:
    """Serves until it is killed."""
    settings = get_settings()
    server = await asyncio.get_running_loop().create_server(_Canned, settings.api_host, settings.api_port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

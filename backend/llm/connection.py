"""The connection to a language model's server: the official SDK, with its surprises taken out."""

from collections.abc import AsyncIterator

import httpx2
import openai

from backend.errors import LLMBadAnswer

MAX_BODY_BYTES = 4 * 1024 * 1024


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends in `LLMBadAnswer` rather than in all of the memory."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for part in self._stream:
            total += len(part)
            if total > MAX_BODY_BYTES:
                raise LLMBadAnswer("The language model's server answered with far too much.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream)


def connect(*, api_key: str, base_url: str, timeout_s: float) -> openai.AsyncOpenAI:
    """A client that retries nothing, reads no flood and follows no redirect, which takes the message away."""
    http = openai.DefaultAsyncHttpxClient(
        timeout=timeout_s, follow_redirects=False, event_hooks={"response": [_bound_body]}
    )
    return openai.AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,
        http_client=http,
        default_headers={"Accept-Encoding": "identity"},  # so that what is bounded is what is read
    )

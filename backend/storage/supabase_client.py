"""supabase-py's client for one project, opened once; what makes it patient, and bounds its answers."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import httpx
from storage3 import SyncStorageClient
from supabase import ClientOptions, create_client

from backend.storage.supabase_errors import FAILURES, is_passing

T = TypeVar("T")
log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20  # for each read; the total is the verb's own
ATTEMPTS = 4
FIRST_PAUSE_S = 0.3
ANSWER_BYTES = 16 * 1024 * 1024  # of everything but objects


class AnswerTooLarge(httpx.DecodingError):
    """More came than was asked for."""


class AnswerTooSlow(httpx.ReadTimeout):
    """The deadline came before the answer's end."""


@dataclass(frozen=True)
class _Bounds:
    max_bytes: int
    until: float  # by the monotonic clock


_bounds: ContextVar[_Bounds] = ContextVar("_bounds")


@contextmanager
def bounded(max_bytes: int, until: float) -> Iterator[None]:
    """What is read inside, in this thread, is no longer than that and takes no longer than until then.

    The library reads whole answers, with a timeout for each read: nothing else ends one that drips.
    """
    token = _bounds.set(_Bounds(max_bytes, until))
    try:
        yield
    finally:
        _bounds.reset(token)


class SupabaseClient:
    """Opened at first use; may be shared by threads."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._http: httpx.Client | None = None
        self._storage: SyncStorageClient | None = None
        self._opening = threading.Lock()

    @property
    def storage(self) -> SyncStorageClient:
        """The part that stores. Raises what supabase-py raises for a URL or a key that is none."""
        with self._opening:
            if self._storage is None:
                self._http = self._http or _open_http()
                options = ClientOptions(
                    auto_refresh_token=False, persist_session=False, httpx_client=self._http
                )
                self._storage = create_client(self._url, self._key, options).storage
            return self._storage

    def close(self) -> None:
        """Gives its connections back; it may be used again."""
        with self._opening:
            http, self._http, self._storage = self._http, None, None
        if http:
            http.close()


def _open_http() -> httpx.Client:
    return httpx.Client(
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=32, keepalive_expiry=30),
        follow_redirects=False,  # the key goes nowhere else
        headers={"Accept-Encoding": "identity"},  # sizes are compared
        event_hooks={"response": [_bound]},
    )


def _bound(response: httpx.Response) -> None:
    """Called before the body is read."""
    if isinstance(response.stream, httpx.SyncByteStream) and (bounds := _bounds.get(None)):
        response.stream = _BoundedStream(response.stream, bounds)


class _BoundedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, bounds: _Bounds) -> None:
        self._stream = stream
        self._bounds = bounds

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for part in self._stream:
            read += len(part)
            if read > self._bounds.max_bytes:
                raise AnswerTooLarge(f"more than {self._bounds.max_bytes} bytes")
            if time.monotonic() > self._bounds.until:
                raise AnswerTooSlow("no end of it in time")
            yield part

    def close(self) -> None:
        self._stream.close()


def tried_again(verb: Callable[[], T], until: float) -> T:
    """What comes of it, at the latest then. For what may be done twice."""
    attempt = 1
    while True:
        try:
            return verb()
        except FAILURES as exc:
            pause_s = random.uniform(0.5, 1) * FIRST_PAUSE_S * 2**attempt  # noqa: S311 - jitter
            if attempt == ATTEMPTS or not is_passing(exc) or time.monotonic() + pause_s > until:
                raise
            log.warning("Supabase Storage once more, for %s", type(exc).__name__)
        time.sleep(pause_s)
        attempt += 1

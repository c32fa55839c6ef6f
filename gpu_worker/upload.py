"""Uploads bytes by one signed HTTP PUT, tried again until a total deadline.

All uploads go through one client in an event loop of its own: it keeps its connections, which spares most of
an upload's processor time, and the handshakes of TLS. It is asynchronous for one reason more: so there is a
deadline for the whole, whatever the server drips. aiohttp's takes a third of the processor time of httpx'.
"""

import asyncio
import json
import ssl
import threading
import time
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO

import aiohttp
from yarl import URL

from contract.messages import FailureCode, SignedUpload
from gpu_worker.engines.base import Failure
from gpu_worker.transfer import FIRST_PAUSE_S, TransferFailed, tried_again

LONGEST_TRY_S = 60.0  # after which a silent storage is asked anew
KEPT_FOR_S = 2.0  # an idle connection: shorter than servers keep theirs
ANSWER_BYTES = 64 * 1024  # of an answer: where it ends the connection is free

EXPIRED = Failure(
    FailureCode.UPLOAD_EXPIRED, "The storage no longer accepts the upload of this image.", retryable=True
)
TOO_LARGE = Failure(
    FailureCode.UPLOAD_FAILED, "The image is larger than what the storage takes.", retryable=False
)
REFUSED = Failure(FailureCode.UPLOAD_FAILED, "The storage refused the image.", retryable=False)
UNREACHABLE = Failure(
    FailureCode.UPLOAD_FAILED, "The image could not be stored: the storage is away.", retryable=True
)

_EXPIRED_STATUSES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.GONE}
_TOKEN_ENDED = {"InvalidJWT", "ExpiredToken", "ExpiredSignature"}  # Supabase Storage's words
_PASSING_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class UploadFailed(TransferFailed):
    """The bytes were not stored."""


class Uploader:
    """Makes signed PUTs. May be used by many threads at once."""

    def __init__(self, timeout_s: float, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="uploads", daemon=True)
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(_open_client(), self._loop).result()

    def close(self) -> None:
        """Closes its connections. Nothing is uploaded afterwards."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def put(self, upload: SignedUpload, content: bytes, *, seconds_left: float) -> None:
        """Stores `content`, or raises `UploadFailed` after `timeout_s` or `seconds_left` at the latest."""
        if len(content) > upload.max_bytes:
            raise UploadFailed(TOO_LARGE, f"{len(content)} bytes, {upload.max_bytes} allowed")
        until = time.monotonic() + min(self._timeout_s, seconds_left)
        tried_again(
            lambda end: self._put_once(upload, content, end),
            until,
            passing=UNREACHABLE,
            longest_try_s=LONGEST_TRY_S,
            first_pause_s=self._first_pause_s,
        )

    def _put_once(self, upload: SignedUpload, content: bytes, until: float) -> None:
        try:
            trying = self._answer(upload, content, until - time.monotonic())
            status, told = asyncio.run_coroutine_threadsafe(trying, self._loop).result()
        except TimeoutError as exc:
            raise UploadFailed(UNREACHABLE, "no answer in time") from exc
        except ValueError as exc:
            raise UploadFailed(REFUSED, "not a URL that can be uploaded to") from exc
        except aiohttp.ClientError as exc:
            raise UploadFailed(UNREACHABLE, type(exc).__name__) from exc
        if not HTTPStatus(200) <= status < HTTPStatus(300):
            status = _meant(status, told)
            raise UploadFailed(_failure_of(status, upload), f"status {status}")

    async def _answer(self, upload: SignedUpload, content: bytes, timeout_s: float) -> tuple[int, bytes]:
        """One PUT: its status, and how the answer begins."""
        url = URL(upload.url, encoded=True)  # as it was signed
        async with (
            asyncio.timeout(max(timeout_s, 0)),
            self._client.put(
                url, data=BytesIO(content), headers=upload.headers, allow_redirects=False
            ) as response,
        ):
            return response.status, await _read_a_little(response)


async def _open_client() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(), keepalive_timeout=KEPT_FOR_S)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),  # each upload has its own
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers={"Content-Type"},  # only what is signed
        trust_env=True,  # a proxy
    )


async def _read_a_little(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for part in response.content.iter_any():
        read += part
        if len(read) > ANSWER_BYTES:
            break
    return bytes(read)


def expired(upload: SignedUpload) -> bool:
    """Is it of no use to try?"""
    return upload.expires_at <= datetime.now(UTC)


def _meant(status: int, told: bytes) -> int:
    """Supabase Storage answers 400 to whatever it refuses; what it means stands in the answer."""
    if status != HTTPStatus.BAD_REQUEST:
        return status
    try:
        answer = json.loads(told)
        if {answer.get("error"), answer.get("code")} & _TOKEN_ENDED:
            return HTTPStatus.GONE
        return int(answer.get("statusCode", status))
    except (ValueError, TypeError, AttributeError):  # somebody else's 400
        return status


def _failure_of(status: int, upload: SignedUpload) -> Failure:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING_STATUSES:
        return UNREACHABLE
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TOO_LARGE
    if status in _EXPIRED_STATUSES or expired(upload):
        return EXPIRED
    return REFUSED

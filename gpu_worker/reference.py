"""Fetches what an image starts from by its signed URL, and opens it without trusting those who sent it."""

import asyncio
import hashlib
import ssl
import struct
import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Literal

import httpx
from PIL import Image, ImageFile

from contract.messages import FailureCode, GenerateImage, SignedDownload
from gpu_worker.engines.base import Failure
from gpu_worker.transfer import FIRST_PAUSE_S, TransferFailed, tried_again

TIMEOUT_S = 60.0  # for one file, all tries together
LONGEST_TRY_S = 20.0  # after which a silent storage is asked anew

FORMATS = ("PNG",)  # what the backend makes of whatever it was sent; nothing else is even tried
CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # of it: those that make the picture
MAX_CHUNKS = 10_000
MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}  # of 8 bits: what can be converted without surprises
MAX_PIXELS = 32 * 1024 * 1024  # the backend sends what the image needs, which is less
MAX_SIDE = 16_384  # pixels

EXPIRED = Failure(  # the code that has the whole message signed anew, and this image made again
    FailureCode.UPLOAD_EXPIRED, "The storage no longer hands out what the image starts from.", retryable=True
)
AWAY = Failure(
    FailureCode.REFERENCE_UNAVAILABLE,
    "What the image starts from could not be fetched: the storage is away.",
    retryable=True,
)
GONE = Failure(
    FailureCode.REFERENCE_UNAVAILABLE, "What the image starts from is not in the storage.", retryable=True
)
TOO_LARGE = Failure(
    FailureCode.REFERENCE_REFUSED, "What the image starts from is larger than announced.", retryable=False
)
NOT_AN_IMAGE = Failure(
    FailureCode.REFERENCE_REFUSED,
    "What the image starts from is not an image that is taken.",
    retryable=False,
)

_EXPIRED_STATUSES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_PASSING_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

# What Pillow raises for broken files: it lets out whatever its parsers trip over.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class ReferenceFailed(TransferFailed):
    """The image to start from can't be had."""


@dataclass(frozen=True)
class Start:
    """What an image starts from, opened."""

    reference: Image.Image | None = None  # RGB
    mask: Image.Image | None = None  # L


class References:
    """Makes signed GETs. May be used by many threads at once."""

    def __init__(self, timeout_s: float = TIMEOUT_S, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._tls = ssl.create_default_context()

    def load(self, message: GenerateImage, *, seconds_left: float) -> Start:
        """What this message names, within `timeout_s` each, and `seconds_left`. Raises `ReferenceFailed`."""
        until = time.monotonic() + seconds_left
        reference, mask = message.reference, message.mask
        return Start(
            reference=open_image(self._fetch(reference, until), "RGB") if reference else None,
            mask=open_image(self._fetch(mask, until), "L") if mask else None,
        )

    def _fetch(self, download: SignedDownload, until: float) -> bytes:
        if download.expires_at <= datetime.now(UTC):
            raise ReferenceFailed(EXPIRED, "expired")
        until = min(until, time.monotonic() + self._timeout_s)
        return tried_again(
            lambda end: self._fetch_once(download, end),
            until,
            passing=AWAY,
            longest_try_s=LONGEST_TRY_S,
            first_pause_s=self._first_pause_s,
        )

    def _fetch_once(self, download: SignedDownload, until: float) -> bytes:
        try:
            content = asyncio.run(self._content(download, until - time.monotonic()))
        except TimeoutError as exc:
            raise ReferenceFailed(AWAY, "no answer in time") from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise ReferenceFailed(GONE, "not a URL that can be asked") from exc
        except httpx.HTTPError as exc:
            raise ReferenceFailed(AWAY, type(exc).__name__) from exc
        if download.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise ReferenceFailed(AWAY, "other bytes than were announced")
        return content

    async def _content(self, download: SignedDownload, timeout_s: float) -> bytes:
        """One GET. Async for one reason: so there is a deadline for the whole, whatever the server drips."""
        headers = {"Accept-Encoding": "identity"}  # what is counted is what is kept
        async with (
            asyncio.timeout(max(timeout_s, 0)),
            httpx.AsyncClient(verify=self._tls, timeout=timeout_s, follow_redirects=False) as client,
            client.stream("GET", download.url, headers=headers) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise ReferenceFailed(_failure_of(response.status_code), f"status {response.status_code}")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > download.max_bytes:
                    raise ReferenceFailed(TOO_LARGE, f"more than {download.max_bytes} bytes")
            return bytes(content)


def _failure_of(status: int) -> Failure:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING_STATUSES:
        return AWAY
    return EXPIRED if status in _EXPIRED_STATUSES else GONE


def open_image(content: bytes, mode: Literal["RGB", "L"]) -> Image.Image:
    """The picture in this mode, without metadata. Its header is judged before its pixels are decoded."""
    try:
        _check_chunks(content)
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            assert isinstance(file, ImageFile.ImageFile)
            _check_header(file)
            file.load()
            image = file.convert(mode)
            image = image.copy() if image is file else image  # a file knows more than its pixels
    except _BROKEN as exc:
        raise ReferenceFailed(NOT_AN_IMAGE, type(exc).__name__) from exc
    image.info = {}
    return image


def _check_chunks(content: bytes) -> None:
    """Texts, profiles and frames are none of the backend's: Pillow would unpack and keep them."""
    at = 8  # after the signature
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(content):
            break
        length, name = struct.unpack_from(">I4s", content, at)
        if name not in CHUNKS:
            raise ReferenceFailed(NOT_AN_IMAGE, f"a chunk {name!r}")
        if name == b"IEND":
            return
        at += 12 + length
    raise ReferenceFailed(NOT_AN_IMAGE, "no PNG, or without an end")


def _check_header(file: ImageFile.ImageFile) -> None:
    width, height = file.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ReferenceFailed(NOT_AN_IMAGE, f"{width}x{height} pixels")
    if file.mode not in MODES:
        raise ReferenceFailed(NOT_AN_IMAGE, f"mode {file.mode}")

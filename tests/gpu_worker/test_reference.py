"""References from a real HTTP server, on its good days and its bad ones; and files of every kind."""

import time
import zlib
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from contract.messages import FailureCode
from gpu_worker.reference import ReferenceFailed, References, Start, open_image
from tests.gpu_worker.http_server import Answer, ScriptedServer
from tests.gpu_worker.messages import download_from, message


def encode(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


PICTURE = encode(Image.new("RGB", (40, 20), (200, 20, 20)))
MASK = encode(Image.new("L", (40, 20), 255))


def load(
    server: ScriptedServer,
    *,
    timeout_s: float = 10,
    seconds_left: float = 60,
    mask: bool = False,
    **changes: Any,
) -> Start:
    asked = message(
        reference=download_from(server.url + "/r.png?signature=x", PICTURE, **changes),
        mask=download_from(server.url + "/m.png?signature=x", MASK) if mask else None,
    )
    return References(timeout_s, first_pause_s=0.01).load(asked, seconds_left=seconds_left)


def failure(server: ScriptedServer, **changes: Any) -> tuple[FailureCode, bool]:
    with pytest.raises(ReferenceFailed) as raised:
        load(server, **changes)
    assert "signature" not in str(raised.value)
    assert "http" not in raised.value.failure.message
    return raised.value.failure.code, raised.value.failure.retryable


def test_reference_and_mask_are_fetched_and_opened(storage: ScriptedServer) -> None:
    storage.script([Answer(body=PICTURE), Answer(body=MASK)])

    start = load(storage, mask=True)

    assert start.reference is not None
    assert start.mask is not None
    assert (start.reference.mode, start.reference.size) == ("RGB", (40, 20))
    assert (start.mask.mode, start.mask.getpixel((0, 0))) == ("L", 255)
    assert [seen.path for seen in storage.seen] == ["/r.png?signature=x", "/m.png?signature=x"]


def test_without_them_nobody_is_asked(storage: ScriptedServer) -> None:
    assert References().load(message(), seconds_left=1) == Start()
    assert storage.seen == []


@pytest.mark.parametrize(
    "first",
    [
        Answer(500),
        Answer(503),
        Answer(429),
        Answer(408),
        Answer(reset=True),
        Answer(body=PICTURE[:-1] + b"x"),
    ],
    ids=["500", "503", "429", "408", "reset", "garbled"],
)
def test_what_passes_is_tried_again(storage: ScriptedServer, first: Answer) -> None:
    storage.script([first, first, Answer(body=PICTURE)])

    load(storage)

    assert len(storage.seen) == 3


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (401, FailureCode.UPLOAD_EXPIRED, True),
        (403, FailureCode.UPLOAD_EXPIRED, True),
        (404, FailureCode.REFERENCE_UNAVAILABLE, True),
        (410, FailureCode.REFERENCE_UNAVAILABLE, True),
        (204, FailureCode.REFERENCE_UNAVAILABLE, True),
        (302, FailureCode.REFERENCE_UNAVAILABLE, True),
    ],
)
def test_refusals(storage: ScriptedServer, status: int, code: FailureCode, retryable: bool) -> None:
    storage.script([Answer(status, headers={"Location": storage.url + "/elsewhere"})])

    assert failure(storage) == (code, retryable)
    assert len(storage.seen) == 1


def test_one_that_has_expired_is_not_even_tried(storage: ScriptedServer) -> None:
    assert failure(storage, expires_s=-1) == (FailureCode.UPLOAD_EXPIRED, True)
    assert storage.seen == []


def test_more_than_was_announced_is_not_read_on(storage: ScriptedServer) -> None:
    storage.script([Answer(body=PICTURE + bytes(50_000_000))])

    assert failure(storage) == (FailureCode.REFERENCE_REFUSED, False)


def test_other_bytes_than_were_announced(storage: ScriptedServer) -> None:
    storage.script([Answer(body=PICTURE)])

    assert failure(storage, sha256="0" * 64, timeout_s=0.3) == (FailureCode.REFERENCE_UNAVAILABLE, True)


def test_what_is_packed_is_not_unpacked(storage: ScriptedServer) -> None:
    # Given a storage that calls the bytes gzip: unpacked, they could be any size
    storage.script([Answer(body=PICTURE, headers={"Content-Encoding": "gzip"})])

    assert load(storage).reference is not None


@pytest.mark.parametrize(
    "bad", [Answer(body=PICTURE, drip_s=0.02), Answer(wait_s=3)], ids=["drips", "is silent"]
)
@pytest.mark.parametrize("limit", ["timeout_s", "seconds_left"])
def test_there_is_a_deadline_for_the_whole(storage: ScriptedServer, bad: Answer, limit: str) -> None:
    storage.script([bad])
    begun = time.monotonic()

    assert failure(storage, **{limit: 0.4}) == (FailureCode.REFERENCE_UNAVAILABLE, True)
    assert time.monotonic() - begun < 2.8


def test_nobody_listens() -> None:
    with ScriptedServer() as server:
        pass

    assert failure(server, timeout_s=0.2) == (FailureCode.REFERENCE_UNAVAILABLE, True)


# -- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_usual_mode_becomes_the_one_that_is_wanted(mode: str) -> None:
    content = encode(Image.new("RGB", (8, 4), "white").convert(mode))

    assert open_image(content, "RGB").getpixel((1, 1)) == (255, 255, 255)
    assert open_image(content, "L").getpixel((1, 1)) == 255


def test_nothing_but_the_pixels_is_kept() -> None:
    opened = open_image(PICTURE, "RGB")

    assert (opened.size, opened.info, type(opened)) == ((40, 20), {}, Image.Image)


def png_with(name: bytes, data: bytes, times: int = 1) -> bytes:
    """A good PNG with chunks more, after its header."""
    checksum = zlib.crc32(name + data).to_bytes(4, "big")
    more = len(data).to_bytes(4, "big") + name + data + checksum
    return PICTURE[:33] + more * times + PICTURE[33:]


@pytest.mark.parametrize(
    "content",
    [
        png_with(b"tEXt", b"Comment\0text"),
        png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**7))),
        png_with(b"iCCP", b"icc\0\0" + zlib.compress(bytes(10**7))),
        png_with(b"acTL", bytes(8)),
        png_with(b"IDAT", b"", 20_000),
        encode(Image.new("RGB", (8, 4)), save_all=True, append_images=[Image.new("RGB", (8, 4), 9)] * 3),
    ],
    ids=["text", "packed text", "profile", "frames", "pieces", "animated"],
)
def test_what_the_backend_never_sends(content: bytes) -> None:
    with pytest.raises(ReferenceFailed) as raised:
        open_image(content, "RGB")

    assert raised.value.failure.code is FailureCode.REFERENCE_REFUSED


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says so."""
    small = bytearray(PICTURE)
    small[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", PICTURE[:40], PICTURE[:-30],
        encode(Image.new("RGB", (8, 4)), "GIF"), encode(Image.new("RGB", (8, 4)), "BMP"),
        encode(Image.new("RGB", (8, 4)), "TIFF"), encode(Image.new("RGB", (8, 4)), "AVIF"),
        encode(Image.new("RGB", (8, 4)), "JPEG"), encode(Image.new("RGB", (8, 4)), "WEBP"),
        encode(Image.new("I;16", (8, 4)), "PNG"),
    ],
    ids=[
        "empty", "text", "svg", "header only", "cut", "gif", "bmp", "tiff", "avif", "jpeg", "webp",
        "16 bits",
    ],
)  # fmt: skip
def test_what_is_not_an_image_that_is_taken(content: bytes) -> None:
    with pytest.raises(ReferenceFailed) as raised:
        open_image(content, "RGB")

    assert raised.value.failure.code is FailureCode.REFERENCE_REFUSED
    assert not raised.value.failure.retryable


@pytest.mark.parametrize("size", [(6000, 6000), (9000, 9000), (50_000, 1)])
def test_a_bomb_is_told_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ReferenceFailed, match=f"{size[0]}x{size[1]} pixels") as raised:
        open_image(png_that_claims(*size), "RGB")

    assert raised.value.failure.code is FailureCode.REFERENCE_REFUSED

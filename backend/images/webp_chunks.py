"""WebP: the first picture and its opacity stay."""

import struct
from collections.abc import Iterator
from typing import Final

from backend.images.sifted import MAX_EXIF_BYTES, MAX_PARTS, MAX_PROFILE_BYTES, Sifted, Unsound

_HAS_ALPHA, _IS_ANIMATED = 0x10, 0x02  # flags of VP8X
_PICTURES: Final = (b"VP8 ", b"VP8L")
_FRAME_HEADER: Final = 16  # bytes: place, size, duration, flags


def sift(data: bytes) -> Sifted:
    """Raises `Unsound`."""
    if data[:4] != b"RIFF" or len(data) < 20:
        raise Unsound("a WebP that ends too soon")
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise Unsound("a WebP that ends too soon")
    first: dict[bytes, memoryview] = {}
    for name, content in _walk(memoryview(data)[12:end]):
        first.setdefault(name, content)
    extended = first.get(b"VP8X")
    if extended is None:
        name, (width, height) = _picture(first)
        return Sifted("WEBP", _riff(_chunk(name, first[name])), width, height, lossy=name == b"VP8 ")
    return _extended(extended, first)


def _extended(extended: memoryview, first: dict[bytes, memoryview]) -> Sifted:
    if len(extended) != 10:
        raise Unsound("a WebP with half a header")
    canvas = _number(extended[4:7]) + 1, _number(extended[7:10]) + 1
    flags = extended[0] & (_HAS_ALPHA | _IS_ANIMATED)
    if flags & _IS_ANIMATED:
        name, kept = _frame(first.get(b"ANMF", memoryview(b"")), canvas)
        kept = _chunk(b"ANIM", bytes(6)) + kept  # once over a ground that is clear
    else:
        name, size = _picture(first)
        if size != canvas:
            raise Unsound("a WebP whose headers contradict each other")
        kept = _opacity(first) + _chunk(name, first[name])
    header = struct.pack("<I", flags) + bytes(extended[4:10])
    return Sifted(
        fmt="WEBP",
        data=_riff(_chunk(b"VP8X", header) + kept),
        width=canvas[0],
        height=canvas[1],
        lossy=name == b"VP8 ",
        profile=_bounded(first.get(b"ICCP"), MAX_PROFILE_BYTES),
        exif=_bounded(first.get(b"EXIF"), MAX_EXIF_BYTES),
    )


def _walk(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    for _ in range(MAX_PARTS):
        if at + 8 > len(view):
            return
        name, length = struct.unpack_from("<4sI", view, at)
        if at + 8 + length > len(view):
            raise Unsound("a WebP that ends too soon")
        yield name, view[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise Unsound("a WebP in too many pieces")


def _frame(frame: memoryview, canvas: tuple[int, int]) -> tuple[bytes, bytes]:
    """The first frame of an animation, as a chunk; and what kind of picture it is."""
    if len(frame) < _FRAME_HEADER:
        raise Unsound("a WebP without its first frame")
    left, top = 2 * _number(frame[0:3]), 2 * _number(frame[3:6])
    size = _number(frame[6:9]) + 1, _number(frame[9:12]) + 1
    inner: dict[bytes, memoryview] = {}
    for name, content in _walk(frame[_FRAME_HEADER:]):
        inner.setdefault(name, content)
    name, found = _picture(inner)
    if found != size or left + size[0] > canvas[0] or top + size[1] > canvas[1]:
        raise Unsound("a WebP whose headers contradict each other")
    kept = bytes(frame[:_FRAME_HEADER]) + _opacity(inner) + _chunk(name, inner[name])
    return name, _chunk(b"ANMF", kept)


def _picture(chunks: dict[bytes, memoryview]) -> tuple[bytes, tuple[int, int]]:
    """Which of its kinds it is, and how large, as the picture itself says."""
    for name in _PICTURES:
        content = chunks.get(name, memoryview(b""))
        if name == b"VP8 " and len(content) >= 10 and bytes(content[3:6]) == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", content, 6)
            size = width & 0x3FFF, height & 0x3FFF
        elif name == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:
            bits = struct.unpack_from("<I", content, 1)[0]
            size = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
        else:
            continue
        if not all(size):
            break
        return name, size
    raise Unsound("a WebP without a picture")


def _opacity(chunks: dict[bytes, memoryview]) -> bytes:
    return _chunk(b"ALPH", chunks[b"ALPH"]) if b"ALPH" in chunks and b"VP8 " in chunks else b""


def _bounded(content: memoryview | None, limit: int) -> bytes | None:
    return bytes(content) if content and len(content) <= limit else None


def _number(three: memoryview) -> int:
    return int.from_bytes(three, "little")


def _chunk(name: bytes, content: bytes | memoryview) -> bytes:
    return b"".join((name, struct.pack("<I", len(content)), content, b"\0" * (len(content) % 2)))


def _riff(content: bytes) -> bytes:
    return b"".join((b"RIFF", struct.pack("<I", len(content) + 4), b"WEBP", content))

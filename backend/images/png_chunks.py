"""PNG: header, palette, transparency and pixels stay."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from backend.images import colour_codes
from backend.images.sifted import MAX_EXIF_BYTES, MAX_PARTS, MAX_PROFILE_BYTES, Sifted, Unsound

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3  # kinds of colour
_DEPTHS: Final = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CRITICAL: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")  # whose checksums count
_GAMMA_OF_SRGB: Final = 0.45455
_TOLERANCE: Final = 0.05  # of a gamma: nobody sees less


@dataclass
class _Chunks:
    """The first of each kind, and all pixels."""

    first: dict[bytes, memoryview] = field(default_factory=dict)
    pixels: list[memoryview] = field(default_factory=list)


def sift(data: bytes) -> Sifted:
    """Raises `Unsound`. Frames of an animation are ancillary: without them the first picture is there."""
    chunks = _collect(data)
    header = chunks.first.get(b"IHDR")
    if header is None or len(header) != 13 or not chunks.pixels:
        raise Unsound("a PNG without header or pixels")
    width, height, depth, kind = struct.unpack_from(">IIBB", header)
    if not width or not height or depth not in _DEPTHS.get(kind, ()):
        raise Unsound(f"a PNG of {width}x{height} pixels, depth {depth}, kind {kind}")
    out = [_SIGNATURE, _chunk(b"IHDR", header)]
    if kind == _PALETTE:
        out.append(_chunk(b"PLTE", _palette(chunks)))
    if transparency := _transparency(chunks, kind, depth):
        out.append(_chunk(b"tRNS", transparency))
    out += [_chunk(b"IDAT", b"".join(chunks.pixels)), _chunk(b"IEND", b"")]
    return Sifted(
        fmt="PNG",
        data=b"".join(out),
        width=width,
        height=height,
        profile=_profile(chunks),
        exif=_bounded(chunks.first.get(b"eXIf")),
        gamma=_gamma(chunks),
    )


def _collect(data: bytes) -> _Chunks:
    chunks = _Chunks()
    for name, content in _walk(data):
        if name == b"IDAT":
            chunks.pixels.append(content)
        else:
            chunks.first.setdefault(name, content)
    return chunks


def _walk(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Up to the end that the file itself marks; what comes after it is nobody's."""
    view, at = memoryview(data), len(_SIGNATURE)
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            raise Unsound("a PNG that ends too soon")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise Unsound("a PNG that ends too soon")
        content = view[at + 8 : end]
        if name in _CRITICAL and zlib.crc32(content, zlib.crc32(name)) != _number(data, end):
            raise Unsound("a PNG whose checksum is wrong")
        if name == b"IEND":
            return
        yield name, content
        at = end + 4
    raise Unsound("a PNG in too many pieces")


def _palette(chunks: _Chunks) -> memoryview:
    palette = chunks.first.get(b"PLTE", memoryview(b""))
    if not 0 < len(palette) <= 768 or len(palette) % 3:
        raise Unsound("a PNG without a palette")
    return palette


def _transparency(chunks: _Chunks, kind: int, depth: int) -> bytes:
    """As Pillow compares it with pixels: it makes 8 bits of them, and leaves this as it is."""
    given = bytes(chunks.first.get(b"tRNS", b""))
    if kind == _PALETTE:
        return given[:256]
    if kind == _GREY and len(given) >= 2:
        value = struct.unpack_from(">H", given)[0] & (2**depth - 1)
        return struct.pack(">H", value * {2: 85, 4: 17}.get(depth, 1))
    if kind == _RGB and len(given) >= 6:
        values = struct.unpack_from(">3H", given)
        return struct.pack(">3H", *(value >> 8 if depth == 16 else value & 255 for value in values))
    return b""


def _profile(chunks: _Chunks) -> bytes | None:
    """Of those who say how colours are meant, the first one counts, as the specification ranks them."""
    return _of_codes(chunks) or _embedded(chunks) or _of_points(chunks)


def _of_codes(chunks: _Chunks) -> bytes | None:
    given = chunks.first.get(b"cICP", memoryview(b""))
    if len(given) != 4 or given[2]:  # a matrix is for other kinds of file
        return None
    return colour_codes.profile_of(given[0], given[1])


def _of_points(chunks: _Chunks) -> bytes | None:
    given = chunks.first.get(b"cHRM", memoryview(b""))
    if len(given) != 32 or b"sRGB" in chunks.first:
        return None
    white, red, green, blue = ((x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", given))
    return colour_codes.profile_of_points((red, green, blue, white), _gamma(chunks))


def _embedded(chunks: _Chunks) -> bytes | None:
    """Unpacked as far as a profile may be large; one that goes on is none."""
    name, _, packed = bytes(chunks.first.get(b"iCCP", b"")).partition(b"\0")
    if not name or not packed or packed[0] != 0:
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if profile and not unpacking.unconsumed_tail else None


def _gamma(chunks: _Chunks) -> float | None:
    given = chunks.first.get(b"gAMA", memoryview(b""))
    if len(given) != 4 or b"sRGB" in chunks.first:
        return None
    gamma = _number(given, 0) / 100_000
    is_usual = abs(gamma - _GAMMA_OF_SRGB) <= _TOLERANCE * _GAMMA_OF_SRGB
    return gamma if 0.1 <= gamma <= 10 and not is_usual else None


def _bounded(content: memoryview | None) -> bytes | None:
    return bytes(content) if content is not None and len(content) <= MAX_EXIF_BYTES else None


def _number(data: bytes | memoryview, at: int) -> int:
    number: int = struct.unpack_from(">I", data, at)[0]
    return number


def _chunk(name: bytes, content: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))

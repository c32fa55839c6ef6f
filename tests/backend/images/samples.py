"""Pictures to try things on: whose pixels are known, and in every format."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

MAX_PIXELS = 50_000_000


def encode(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    """The file's bytes."""
    out = BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def quarters(width: int = 200, height: int = 100) -> Image.Image:
    """Red, green / blue, yellow."""
    image = Image.new("RGB", (width, height), (200, 20, 20))
    image.paste((20, 180, 20), (width // 2, 0, width, height // 2))
    image.paste((20, 20, 200), (0, height // 2, width // 2, height))
    image.paste((220, 220, 20), (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> list[str]:
    """What `quarters` has in its four corners, by name, row by row."""
    names = {(200, 20, 20): "red", (20, 180, 20): "green", (20, 20, 200): "blue", (220, 220, 20): "yellow"}
    rgb = image.convert("RGB")
    places = [(x, y) for y in (0.1, 0.9) for x in (0.1, 0.9)]
    found = []
    for x, y in places:
        pixel = rgb.getpixel((int(x * image.width), int(y * image.height)))
        assert isinstance(pixel, tuple)
        nearest = min(names, key=lambda colour: distance(colour, pixel))
        assert distance(nearest, pixel) < 40, (pixel, nearest)
        found.append(names[nearest])
    return found


def distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The largest difference of a channel."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def png(width: int, height: int, *, depth: int = 8, kind: int = 2, data: bytes = b"") -> bytes:
    """A PNG by hand: its header may claim what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

"""GIF: the screen, its colours and the first picture stay."""

import struct
from typing import Final

from backend.images.sifted import Sifted, Unsound

MAX_BLOCKS: Final = 1_000_000  # of up to 255 bytes each
_EXTENSION, _PICTURE = 0x21, 0x2C
_CONTROL: Final = 0xF9  # the extension that tells which colour is transparent


def sift(data: bytes) -> Sifted:
    """Raises `Unsound`. Where later frames are, and how many, is not even looked at."""
    try:
        return _first_picture(data)
    except (IndexError, struct.error) as exc:
        raise Unsound("a GIF that ends too soon") from exc


def _first_picture(data: bytes) -> Sifted:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _table_bytes(flags)
    out = [data[:at]]
    blocks_left = MAX_BLOCKS
    while data[at] == _EXTENSION:
        after, blocks_left = _skip(data, at + 2, blocks_left)
        if data[at + 1] == _CONTROL:
            out[1:] = [data[at:after]]  # the last one counts
        at = after
    if data[at] != _PICTURE:
        raise Unsound("a GIF without a picture")
    left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at + 1)
    after, _ = _skip(data, at + 10 + _table_bytes(flags) + 1, blocks_left)
    out += [data[at:after], b";"]
    width, height = max(width, left + across), max(height, top + down)
    if not across or not down:
        raise Unsound("a GIF of no size")
    box = left, top, left + across, top + down
    return Sifted("GIF", b"".join(out), width, height, box=None if box == (0, 0, width, height) else box)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip(data: bytes, at: int, blocks_left: int) -> tuple[int, int]:
    """Where the blocks that begin here have ended, and how many more may come."""
    while length := data[at]:
        at += 1 + length
        blocks_left -= 1
        if not blocks_left:
            raise Unsound("a GIF in too many pieces")
    return at + 1, blocks_left

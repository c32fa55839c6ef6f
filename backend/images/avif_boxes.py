"""AVIF: stays as it is, but for its animation; what it makes the decoder do is known first.

The size that its boxes claim is not the one that is decoded: each coded picture has its own, and the
decoder makes room for it. So all of them are looked up.
"""

import struct
from collections.abc import Iterator
from typing import Final

from backend.images import colour_codes
from backend.images.sifted import Sifted, Unsound

MAX_BOXES: Final = 10_000
MAX_ITEMS: Final = 1000
MAX_PROPERTIES: Final = 10_000  # of all items together
MAX_FRAMES_PER_ITEM: Final = 8  # coded ones: layers of one picture
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # kinds of OBU


def sift(data: bytes) -> Sifted:
    """Raises `Unsound`. An animation's track is made a box that nobody reads: its first picture is left."""
    try:
        return _sift(data)
    except (IndexError, struct.error) as exc:
        raise Unsound("an AVIF that ends too soon") from exc


def _sift(data: bytes) -> Sifted:
    out = bytearray(data)
    metas = []
    for name, start, end in _boxes(data, 0, len(data)):
        if name == b"ftyp":
            out[start:end] = _without_films(data[start:end])
        elif name == b"moov":
            out[start - 4 : start] = b"free"
        elif name == b"meta":
            metas.append((start + 4, end))
    if len(metas) != 1:
        raise Unsound("an AVIF without one picture")
    children = {name: (start, end) for name, start, end in _boxes(data, *metas[0])}
    coded = [size for start, end in _coded_pictures(data, children) for size in _sizes_in(data, start, end)]
    claimed = _claimed_sizes(data, children)
    if not coded or not claimed:
        raise Unsound("an AVIF without a picture")
    width, height = max(claimed, key=lambda size: size[0] * size[1])
    largest = max(across * down for across, down in coded + claimed)
    total = sum(across * down for across, down in coded)
    # Opacity, a depth map and a thumbnail may stand beside the picture; not more.
    return Sifted(
        fmt="AVIF",
        data=bytes(out),
        width=width,
        height=height,
        lossy=True,
        profile=_profile(data, children),
        pixels=max(largest, total // 4),
    )


def _without_films(brands: bytes) -> bytes:
    """The kinds of file that it says to be: a single picture."""
    return brands.replace(b"avis", b"avif").replace(b"msf1", b"mif1")


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of what is in each box."""
    for _ in range(MAX_BOXES):
        if at + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            length, start = struct.unpack_from(">Q", data, start)[0], start + 8
        after = end if length == 0 else at + length
        if after < start or after > end:
            raise Unsound("an AVIF that ends too soon")
        yield name, start, after
        at = after
    raise Unsound("an AVIF in too many pieces")


def _claimed_sizes(data: bytes, children: dict[bytes, tuple[int, int]]) -> list[tuple[int, int]]:
    properties = {name: (start, end) for name, start, end in _boxes(data, *children.get(b"iprp", (0, 0)))}
    sizes = [
        struct.unpack_from(">II", data, start + 4)
        for name, start, _ in _boxes(data, *properties.get(b"ipco", (0, 0)))
        if name == b"ispe"
    ]
    return [(width, height) for width, height in sizes]


def _profile(data: bytes, children: dict[bytes, tuple[int, int]]) -> bytes | None:
    """Where the picture's colours are told by codes alone; a whole profile is found by the decoder."""
    codes = None
    for start, end in _colours(data, children):
        kind = data[start : start + 4]
        if kind in (b"prof", b"rICC"):
            return None
        if kind == b"nclx" and end - start >= 8:
            codes = struct.unpack_from(">HH", data, start + 4)
    return colour_codes.profile_of(*codes) if codes else None


def _colours(data: bytes, children: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The properties of the picture itself that tell of its colours: what stands beside it has its own."""
    within = {name: (start, end) for name, start, end in _boxes(data, *children.get(b"iprp", (0, 0)))}
    properties = list(_boxes(data, *within.get(b"ipco", (0, 0))))
    at, _ = children.get(b"pitm", (0, 0))
    primary = _number(data, at + 4, 4 if data[at] else 2) if at else None
    for item, place in _associations(data, *within.get(b"ipma", (0, 0))):
        if item == primary and 0 < place <= len(properties):
            name, start, end = properties[place - 1]
            if name == b"colr":
                yield start, end


def _associations(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Each item with the place of each of its properties, from 1."""
    if at + 8 > end:
        return
    item_bytes, place_bytes = 4 if data[at] else 2, 2 if data[at + 3] & 1 else 1
    count, at = _number(data, at + 4, 4), at + 8
    left = MAX_PROPERTIES
    for _ in range(count):
        item, many = _number(data, at, item_bytes), _number(data, at + item_bytes, 1)
        at += item_bytes + 1
        left -= 1 + many
        if left < 0 or at > end:
            raise Unsound("an AVIF in too many pieces")
        for _ in range(many):
            place = _number(data, at, place_bytes) & (0x7F if place_bytes == 1 else 0x7FFF)
            at += place_bytes
            yield item, place


def _coded_pictures(data: bytes, children: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Where the bytes of each item that is a coded picture are."""
    kinds = _kinds(data, children)
    for item, start, end in _places(data, children):
        if kinds.get(item) == b"av01":
            yield start, end


def _kinds(data: bytes, children: dict[bytes, tuple[int, int]]) -> dict[int, bytes]:
    start, end = children.get(b"iinf", (0, 0))
    if not end:
        raise Unsound("an AVIF without items")
    kinds = {}
    for name, begin, _ in _boxes(data, start + (6 if data[start] == 0 else 8), end):
        version = data[begin]
        if name != b"infe" or version not in (2, 3):
            raise Unsound("an AVIF with items that are not taken")
        item, _, kind = struct.unpack_from(">HH4s" if version == 2 else ">IH4s", data, begin + 4)
        kinds[item] = kind
    return kinds


def _places(data: bytes, children: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Item, begin and end. Each in one piece, as writers of pictures do it."""
    at, _ = children.get(b"iloc", (0, 0))
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    if version > 2:
        raise Unsound("an AVIF with items that are not taken")
    offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more >> 4
    index_bytes = more & 15 if version else 0
    number_bytes = 4 if version == 2 else 2
    count = _number(data, at + 6, number_bytes)
    at += 6 + number_bytes
    if count > MAX_ITEMS:
        raise Unsound("an AVIF in too many pieces")
    for _ in range(count):
        item = _number(data, at, number_bytes)
        at += number_bytes
        method = _number(data, at, 2) & 15 if version else 0
        at += 2 + (2 if version else 0)
        base = _number(data, at, base_bytes)
        extents = _number(data, at + base_bytes, 2)
        at += base_bytes + 2
        if extents != 1 or method > 1:
            raise Unsound("an AVIF with items that are not taken")
        at += index_bytes
        offset, length = _number(data, at, offset_bytes), _number(data, at + offset_bytes, length_bytes)
        at += offset_bytes + length_bytes
        inside, limit = children.get(b"idat", (0, 0)) if method else (0, len(data))
        start = inside + base + offset
        end = start + length if length else limit
        if end > limit:
            raise Unsound("an AVIF that ends too soon")
        yield item, start, end


def _number(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + length], "big")


# -- a coded picture, in AV1 ----------------------------------------------------------------------------


def _sizes_in(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Of each sequence that begins there: the most that a picture of it may have."""
    frames = 0
    while at < end:
        head = data[at]
        kind = head >> 3 & 15
        at += 2 if head & 4 else 1
        length = end - at
        if head & 2:
            length, at = _leb128(data, at)
        if at + length > end:
            raise Unsound("an AVIF that ends too soon")
        if kind == _SEQUENCE_HEADER:
            yield _size_of_sequence(data[at : at + length])
        frames += kind in (_FRAME_HEADER, _FRAME)
        if frames > MAX_FRAMES_PER_ITEM:
            raise Unsound("an AVIF with too many frames")
        at += length


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value, at + place + 1
    raise Unsound("an AVIF with a number that doesn't end")


class _Bits:
    """Reads numbers of any number of bits."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & (1 << count) - 1


def _size_of_sequence(header: bytes) -> tuple[int, int]:
    bits = _Bits(header[:64])  # what is looked for is in the first few bytes
    bits.read(4)  # profile, is it still
    if bits.read(1):  # a reduced header, as only stills have it
        bits.read(5)  # level
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    if bits.read(1):
        raise Unsound("an AVIF with the timing of a film")
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:  # its level
            bits.read(1)  # its tier
        if has_delay and bits.read(1):
            bits.read(4)

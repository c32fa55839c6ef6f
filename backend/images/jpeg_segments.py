"""JPEG: tables, frame and scans stay, and what says how their colours are stored."""

import re
import struct
from dataclasses import dataclass, field
from typing import Final

from backend.images.sifted import MAX_EXIF_BYTES, MAX_PARTS, MAX_PROFILE_BYTES, Sifted, Unsound

MAX_SCANS: Final = 64  # a progressive one has about 10; each goes over the whole picture again

# In a scan 0xff is followed by 0, or by the number of a restart; filling bytes may repeat it.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_START, _END, _SCAN, _ADOBE, _COMMENT = 0xD8, 0xD9, 0xDA, 0xEE, 0xFE
_FRAMES: Final = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what browsers show
_OTHERS: Final = {
    0xC3: "a lossless JPEG, which is not taken",
    0xC9: "a JPEG in arithmetic coding, which is not taken",
    0xCA: "a JPEG in arithmetic coding, which is not taken",
    0xCC: "a JPEG in arithmetic coding, which is not taken",
    0xF7: "a JPEG-LS, which is not taken",
}
_TABLES: Final = (0xC4, 0xDB, 0xDD)  # Huffman, quantization, restart interval
_APPLICATIONS: Final = range(0xE0, 0xF0)
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"  # without density and thumbnail
_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"


@dataclass
class _Found:
    """What the segments have told so far."""

    out: list[bytes | memoryview] = field(default_factory=lambda: [b"\xff\xd8"])
    size: tuple[int, int] | None = None
    scans: int = 0
    has_jfif: bool = False
    has_adobe: bool = False
    exif: bytes | None = None
    profile: dict[int, bytes] = field(default_factory=dict)  # its pieces by their number
    pieces: int = 0  # that there should be


def sift(data: bytes) -> Sifted:
    """Raises `Unsound`. What follows the end of the picture, another picture perhaps, is left out."""
    found = _Found()
    _walk(data, found)
    if found.size is None or not found.scans:
        raise Unsound("a JPEG without a picture")
    width, height = found.size
    return Sifted(
        fmt="JPEG",
        data=b"".join(found.out),
        width=width,
        height=height,
        lossy=True,
        profile=_profile(found),
        exif=found.exif,
    )


def _walk(data: bytes, found: _Found) -> None:
    view, at = memoryview(data), 2
    for _ in range(MAX_PARTS):
        match = _MARKER.search(data, at)
        place = match.start() if match else len(data)
        if found.scans:
            found.out.append(view[at:place])  # the scan's own bytes, up to the next marker
        if match is None:
            return  # the decoder will tell whether something is missing
        marker = data[place + 1]
        if marker == _END:
            found.out.append(b"\xff\xd9")
            return
        if place + 4 > len(data):
            raise Unsound("a JPEG that ends too soon")
        at = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        if at < place + 4 or at > len(data):
            raise Unsound("a JPEG that ends too soon")
        _take(marker, view[place:at], found)
    raise Unsound("a JPEG in too many pieces")


def _take(marker: int, segment: memoryview, found: _Found) -> None:
    if marker in _TABLES:
        found.out.append(segment)
    elif marker in _FRAMES:
        _take_frame(segment, found)
    elif marker == _SCAN:
        found.scans += 1
        if found.size is None or found.scans > MAX_SCANS:
            raise Unsound("a JPEG with a scan without a frame, or with too many scans")
        found.out.append(segment)
    elif marker in _APPLICATIONS:
        _take_application(marker, bytes(segment[4:]), found)
    elif marker != _COMMENT:
        raise Unsound(_OTHERS.get(marker, f"a JPEG with a marker that is not taken: {marker:#x}"))


def _take_frame(segment: memoryview, found: _Found) -> None:
    if found.size is not None or len(segment) < 10:
        raise Unsound("a JPEG with two frames, or with half a one")
    depth, height, width, components = struct.unpack_from(">BHHB", segment, 4)
    if depth != 8 or not width or not height or components not in (1, 3, 4):
        raise Unsound(f"a JPEG of {width}x{height} pixels, {components} times {depth} bits")
    found.size = width, height
    found.out.append(segment)


def _take_application(marker: int, content: bytes, found: _Found) -> None:
    if found.scans:
        return
    if marker == 0xE0 and content.startswith(b"JFIF\0") and not found.has_jfif:
        found.has_jfif = True
        found.out.append(_JFIF)
    elif marker == 0xE1 and content.startswith(_EXIF) and found.exif is None:
        found.exif = content[:MAX_EXIF_BYTES]
    elif marker == 0xE2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
        number, found.pieces = content[len(_ICC)], content[len(_ICC) + 1]
        found.profile.setdefault(number, content[len(_ICC) + 2 :])
    elif marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12 and not found.has_adobe:
        found.has_adobe = True
        found.out.append(b"\xff\xee\x00\x0e" + content[:12])


def _profile(found: _Found) -> bytes | None:
    """Where all of its pieces are there."""
    if not found.pieces or set(found.profile) != set(range(1, found.pieces + 1)):
        return None
    profile = b"".join(found.profile[number] for number in sorted(found.profile))
    return profile if len(profile) <= MAX_PROFILE_BYTES else None

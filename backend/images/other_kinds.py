"""What a file is that is not taken, so that whoever sent it can be told."""

from typing import Final

_LOOKED_AT: Final = 1024  # bytes
_BEGIN_WITH: Final[tuple[tuple[bytes, str], ...]] = (
    (b"II*\0", "a TIFF, or a camera's raw file"),
    (b"MM\0*", "a TIFF, or a camera's raw file"),
    (b"BM", "a BMP"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "packed by gzip"),
)
_TEXT_BEGINS_WITH: Final[tuple[tuple[bytes, str], ...]] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
)
_HEIC: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_FILMS: Final = (b"isom", b"iso2", b"mp41", b"mp42", b"M4V ", b"qt  ", b"3gp4", b"3gp5")


def kind_of(data: bytes) -> str | None:
    """In words that go on after "The file is". None: one that is taken, or nobody knows."""
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return _kind_of_boxes(data)
    found = next((kind for magic, kind in _BEGIN_WITH if data.startswith(magic)), None)
    return found or _kind_of_text(data[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _kind_of_boxes(data: bytes) -> str | None:
    brands = {data[at : at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
    if brands & {b"avif", b"avis"}:
        return None
    if not brands.isdisjoint(_HEIC):
        return "a HEIC"
    return "a film" if data[8:12] in _FILMS else None


def _kind_of_text(text: bytes) -> str | None:
    found = next((kind for begin, kind in _TEXT_BEGINS_WITH if text.startswith(begin)), None)
    if found != "an HTML page" and text.startswith(b"<") and b"<svg" in text:
        return "an SVG"  # which may begin as XML, or with a comment
    return found

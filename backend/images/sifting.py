"""Of a file from outside, the picture alone: what no decoder needs is gone before a decoder sees it.

Pillow keeps comments, text and metadata as it opens a file, in time and memory that grow faster than the
file. Here a file is cut into its parts, the parts that make the first picture are put together again, and
what the header claims is known before anything is set aside for it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from backend.images import avif_boxes, gif_blocks, jpeg_segments, other_kinds, png_chunks, webp_chunks
from backend.images.sifted import Sifted, Unsound

_MAGIC: Final[tuple[tuple[str, int, bytes], ...]] = (
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("WEBP", 8, b"WEBP"),
    ("AVIF", 4, b"ftyp"),
)
_SIFT: Final[dict[str, Callable[[bytes], Sifted]]] = {
    "PNG": png_chunks.sift,
    "JPEG": jpeg_segments.sift,
    "GIF": gif_blocks.sift,
    "WEBP": webp_chunks.sift,
    "AVIF": avif_boxes.sift,
}
_NAMES: Final = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF", "GIF": "GIF"}


def sift(data: bytes, formats: Sequence[str]) -> Sifted:
    """The first picture of a file of one of these formats. Raises `Unsound`; its words follow "The file is".

    Takes time and memory in proportion to the file, whatever is in it.
    """
    fmt = None if (other := other_kinds.kind_of(data)) else _format_of(data)
    if fmt is None or fmt not in formats:
        raise Unsound(f"{other or _foreign(fmt)}; {_listed(formats)} are taken")
    return _SIFT[fmt](data)


def _format_of(data: bytes) -> str | None:
    return next((fmt for fmt, at, magic in _MAGIC if data.startswith(magic, at)), None)


def _foreign(fmt: str | None) -> str:
    return f"a {_NAMES[fmt]}" if fmt else "of no kind that is known"


def _listed(formats: Sequence[str]) -> str:
    names = [_NAMES[fmt] for fmt in formats]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"{names[0]} alone"

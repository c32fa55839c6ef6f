"""All that is made of one original, decoded once."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.images.opening import read
from backend.images.placeholder import PALETTE_SIDE, blurhash_of, dominant_color
from backend.images.thumbnails import Thumbnail, ThumbnailFormat, make_thumbnails


@dataclass(frozen=True)
class Prepared:
    """What goes into the row of an image."""

    width: int  # of the original, upright
    height: int
    content_type: str  # of the original, by its bytes
    thumbnails: list[Thumbnail]  # from small to large
    blurhash: str
    color: str  # "#rrggbb"


def prepare(data: bytes, sizes: Sequence[int], fmt: ThumbnailFormat, max_pixels: int) -> Prepared:
    """Thumbnails (see `make_thumbnails`) and placeholders of one original. Raises `ImageUnreadable`."""
    original = read(data, max_pixels=max_pixels, at_least=2 * max(sizes, default=PALETTE_SIDE))
    return Prepared(
        width=original.size[0],
        height=original.size[1],
        content_type=original.content_type,
        thumbnails=make_thumbnails(original.image, sizes, fmt),
        blurhash=blurhash_of(original.image),
        color=dominant_color(original.image),
    )

"""Smaller copies of a picture, each made from the next larger one."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL import Image

ThumbnailFormat = Literal["webp", "avif"]

WEBP_OPTIONS = {"quality": 82, "method": 4}
AVIF_OPTIONS = {"quality": 65, "speed": 8, "max_threads": 1}  # the threads are ours: images side by side

THUMBNAIL_BOX = (200, 200)  # pixels


@dataclass(frozen=True)
class Thumbnail:
    """One encoded thumbnail."""

    width: int
    height: int
    content_type: str
    data: bytes


def make_thumbnails(image: Image.Image, sizes: Sequence[int], fmt: ThumbnailFormat) -> list[Thumbnail]:
    """One per size, which is the longer side in pixels, from small to large; never larger than the image.

    Sizes that come to the same give one thumbnail.
    """
    made: list[Image.Image] = []
    for size in sorted({min(size, max(image.size)) for size in sizes}, reverse=True):
        made.append(_shrink(image, made, size))
    return [_encode(one, fmt) for one in reversed(made)]


def make_boxed_thumbnails(
    image: Image.Image, boxes: Sequence[tuple[int, int]] = (THUMBNAIL_BOX,), fmt: ThumbnailFormat = "webp"
) -> list[Thumbnail]:
    """One per box (width, height), as large as fits into it; else as `make_thumbnails`."""
    return make_thumbnails(image, [_longer_side_in(image.size, box) for box in boxes], fmt)


def _longer_side_in(size: tuple[int, int], box: tuple[int, int]) -> int:
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(int(max(size) * scale + 1e-9), 1)


def _shrink(image: Image.Image, made: Sequence[Image.Image], size: int) -> Image.Image:
    """From the smallest that is at least twice as large: less work than from the image, and as sharp."""
    source = next((one for one in reversed(made) if max(one.size) >= 2 * size), image)
    target = fit(image.size, size)
    if source.size == target:
        return source
    return source.resize(target, Image.Resampling.LANCZOS, reducing_gap=2.0)


def fit(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Width and height with this longer side and the same aspect."""
    scale = min(longer / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _encode(image: Image.Image, fmt: ThumbnailFormat) -> Thumbnail:
    out = BytesIO()
    image.save(out, fmt.upper(), **(WEBP_OPTIONS if fmt == "webp" else AVIF_OPTIONS))
    return Thumbnail(image.width, image.height, f"image/{fmt}", out.getvalue())

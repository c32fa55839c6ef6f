"""A picture from outside, written again: as small as it can be without looking worse, and nothing beside it.

Which kind of file it becomes follows from what it was:

- JPEG (and MPO, a JPEG with others behind it) becomes JPEG of quality 85; one that was coarser than that
  keeps its own coarseness, so that it doesn't grow.
- WebP and AVIF that had lost detail already stay what they are. Where quality 85 takes more bytes than the
  original had, some steps less are taken. An AVIF of more than `MAX_COSTLY_PIXELS` becomes WebP, and a
  WebP that is too long for its kind becomes JPEG or PNG.
- What was kept without loss (PNG, GIF, lossless WebP) is looked at. Flat graphics, screenshots, and what has
  at most 256 colours and isn't grey, stay without loss: PNG, with a palette where that does, or WebP where
  that is smaller. A photograph, also one on a plain ground or cut out, becomes JPEG, or PNG where that is
  smaller; one with transparency becomes WebP, whose colours lose detail and whose opacity doesn't, or PNG
  where that is smaller.

What the file knew beside its pixels is gone before this: see `opening` and `sifting`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from backend.images.opening import Original, read
from backend.images.thumbnails import Thumbnail, ThumbnailFormat, make_boxed_thumbnails

UPLOADS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "GIF")
QUALITY: Final = 85
STEPS: Final = {  # of quality, for what came with less detail; AVIF's 65 looks as JPEG's 85 does
    "webp": (QUALITY, 70, 50, 30),
    "avif": (65, 50),  # each takes long
}
MAX_COSTLY_PIXELS: Final = 8_000_000  # for AVIF and lossless WebP, whose writers take some 30 bytes for each
MAX_WEBP_SIDE: Final = 16_383  # pixels; more can't be said in it
FLAT_SHARE: Final = 0.5  # of pixels that are as their neighbour: far more than in any photograph
WORTH_IT: Final = 4  # times fewer bytes: then flat ones lose detail. Drawings come to 2, photographs to 10
MAX_COLOURS: Final = 256  # of a palette
_ROWS: Final = 256  # that are looked at together

Pixels: TypeAlias = NDArray[np.uint8]  # (height, width, 3 or 4)


@dataclass(frozen=True)
class Optimized:
    """What is stored, and what was made beside it."""

    data: bytes
    content_type: str
    width: int
    height: int
    lossless: bool  # nothing was lost by writing it
    re_encoded: bool  # False: the file was like this already, byte for byte
    thumbnails: list[Thumbnail]  # from small to large


def optimize(
    data: bytes,
    *,
    max_pixels: int,
    scale: float = 1.0,
    boxes: Sequence[tuple[int, int]] = (),
    fmt: ThumbnailFormat = "webp",
    formats: tuple[str, ...] = UPLOADS,
) -> Optimized:
    """The picture, upright and sRGB, without metadata; the same bytes each time. Raises `ImageUnreadable`.

    `scale` shrinks it, 0.5 to half its width and height; `boxes` are what thumbnails have to fit into.
    Raises ValueError where `scale` is not above 0 and at most 1.
    """
    original = read(data, max_pixels=max_pixels, formats=formats)
    image = resize_by(original.image, scale)
    content, fmt_made, lossless = _smallest(image, original, len(data), is_scaled=image is not original.image)
    return Optimized(
        data=content,
        content_type=f"image/{fmt_made}",
        width=image.width,
        height=image.height,
        lossless=lossless,
        re_encoded=content != data,
        thumbnails=make_boxed_thumbnails(image, boxes, fmt) if boxes else [],
    )


def resize_by(image: Image.Image, scale: float) -> Image.Image:
    """Both sides times this, at least a pixel each."""
    if not 0 < scale <= 1:
        raise ValueError(f"a scale of {scale}: it must be above 0 and at most 1")
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _smallest(
    image: Image.Image, original: Original, length: int, *, is_scaled: bool
) -> tuple[bytes, str, bool]:
    """Bytes, kind, and whether nothing was lost."""
    if original.lossy:
        tables = () if is_scaled else original.tables
        fmt = _lossy_kind(image, original.content_type)
        return _write_lossy(image, fmt, length, tables), fmt, fmt == "png"
    colours = _colours(image)
    is_grey = _as_grey(image).mode == "L"  # of which a photograph may have no more than 256 levels
    is_drawn = colours is not None and not is_grey
    is_flat = is_drawn or _is_flat(image)
    made = [(_write_png(image, colours, is_flat=is_flat), "png", True)]
    if is_flat and image.width * image.height <= MAX_COSTLY_PIXELS and max(image.size) <= MAX_WEBP_SIDE:
        made.append((_save(image, "WEBP", lossless=True, method=4, quality=75), "webp", True))
    kept = min(made, key=lambda one: len(one[0]))
    fmt = _lossy_kind(image, "image/jpeg" if image.mode == "RGB" else "image/webp")
    if is_drawn or fmt == "png":
        return kept
    lossy = _write_lossy(image, fmt, None, ())
    return (lossy, fmt, False) if len(lossy) * (WORTH_IT if is_flat else 1) < len(kept[0]) else kept


# -- with loss ------------------------------------------------------------------------------------------


def _lossy_kind(image: Image.Image, content_type: str) -> str:
    kind = content_type.removeprefix("image/")
    if kind == "avif" and image.width * image.height > MAX_COSTLY_PIXELS:
        kind = "webp"
    if kind == "webp" and max(image.size) > MAX_WEBP_SIDE:
        return "jpeg" if image.mode == "RGB" else "png"
    return kind


def _write_lossy(image: Image.Image, fmt: str, at_most: int | None, tables: Sequence[Sequence[int]]) -> bytes:
    if fmt == "jpeg":
        return _write_jpeg(image, tables)
    if fmt == "png":
        return _write_png(image, None, is_flat=False)
    write = _write_webp if fmt == "webp" else _write_avif
    for quality in STEPS[fmt]:
        content = write(image, quality)
        if at_most is None or len(content) <= at_most:
            break
    return content


def _write_jpeg(image: Image.Image, tables: Sequence[Sequence[int]]) -> bytes:
    """With the original's tables where they are coarser: finer ones would store its faults in more bytes."""
    image = _as_grey(image)
    options: dict[str, Any] = {"quality": QUALITY}
    if tables and sum(tables[0]) > sum(_usual_tables()[0]):
        options = {"qtables": [[min(max(step, 1), 255) for step in table] for table in tables[:2]]}
    return _save(image, "JPEG", optimize=True, progressive=True, subsampling="4:2:0", **options)


@cache
def _usual_tables() -> list[list[int]]:
    small = Image.open(BytesIO(_save(Image.new("RGB", (8, 8)), "JPEG", quality=QUALITY)), formats=("JPEG",))
    tables: dict[int, list[int]] = small.quantization  # type: ignore[attr-defined]
    return list(tables.values())


def _write_webp(image: Image.Image, quality: int) -> bytes:
    return _save(image, "WEBP", quality=quality, alpha_quality=100, method=4)


def _write_avif(image: Image.Image, quality: int) -> bytes:
    return _save(image, "AVIF", quality=quality, speed=8, max_threads=1)


# -- without loss ---------------------------------------------------------------------------------------


def _write_png(image: Image.Image, colours: Sequence[int] | None, *, is_flat: bool) -> bytes:
    image, options = _with_palette(image, colours) if colours else (_as_grey(image), {})
    hard = is_flat and image.width * image.height <= MAX_COSTLY_PIXELS
    return _save(image, "PNG", compress_level=9 if hard else 6, **options)


def _with_palette(image: Image.Image, colours: Sequence[int]) -> tuple[Image.Image, dict[str, Any]]:
    """The same pixels, by the number of their colour."""
    indexed = Image.new("P", image.size)
    for top, pixels in _strips(image):
        numbers = np.searchsorted(np.asarray(colours, np.uint32), _packed(pixels)).astype(np.uint8)
        indexed.paste(Image.fromarray(numbers), (0, top))
    rgba = np.asarray(colours, ">u4").view(np.uint8).reshape(-1, 4)  # opacity first: see `_packed`
    indexed.putpalette(rgba[:, 1:].tobytes(), "RGB")
    return indexed, {} if image.mode == "RGB" else {"transparency": rgba[:, 0].tobytes()}


def _colours(image: Image.Image) -> list[int] | None:
    """In order, as `_packed` makes them; None where they are too many for a palette."""
    found: set[int] = set()
    for _, pixels in _strips(image):
        found.update(np.unique(_packed(pixels)).tolist())
        if len(found) > MAX_COLOURS:
            return None
    return sorted(found)


def _is_flat(image: Image.Image) -> bool:
    """Whether large parts have one colour each, as in what is drawn and not photographed."""
    same = 0
    for _, pixels in _strips(image):
        packed = _packed(pixels)
        same += int((packed[:, 1:] == packed[:, :-1]).sum())
    return same >= FLAT_SHARE * image.width * image.height


def _strips(image: Image.Image) -> Iterator[tuple[int, Pixels]]:
    """Some rows at a time, and where they begin: numbers for all pixels would be many times the picture."""
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        yield top, np.asarray(rows)


def _packed(pixels: Pixels) -> NDArray[np.uint32]:
    """Each pixel as one number: opacity, red, green, blue."""
    packed: NDArray[np.uint32] = np.full(pixels.shape[:2], 255, np.uint32)
    for channel in (3, 0, 1, 2) if pixels.shape[2] == 4 else (0, 1, 2):
        packed = packed << np.uint32(8) | pixels[:, :, channel]
    return packed


def _as_grey(image: Image.Image) -> Image.Image:
    """In one channel, if that says it all."""
    if image.mode != "RGB":
        return image
    red, green, blue = image.split()
    if ImageChops.difference(red, green).getbbox() or ImageChops.difference(red, blue).getbbox():
        return image
    return red


def _save(image: Image.Image, fmt: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own
    out = BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()

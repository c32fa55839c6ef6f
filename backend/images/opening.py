"""Bytes that somebody sent, made into a picture without trusting them."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile

from backend.errors import ImageUnreadable
from backend.images.colour import to_srgb
from backend.images.sifted import Sifted, Unsound
from backend.images.sifting import sift
from backend.images.thumbnails import fit

# Only these are ever tried: Pillow alone would open PostScript and much more.
ORIGINALS = ("PNG", "JPEG", "WEBP")
CONTENT_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}

MAX_SIDE = 30_000  # pixels
JPEG_PIXELS_PER_BYTE = (
    600  # more can't be said in JPEG, not even of a plain colour: the rest would be made up
)

# What Pillow raises for broken files: it lets out whatever its parsers trip over.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,  # of a damaged AVIF
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # where warnings are errors
)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Original:
    """An opened original."""

    image: Image.Image  # as `open_original` gives it, or smaller where that was enough
    size: tuple[int, int]  # of the original, upright
    content_type: str
    lossy: bool = False  # how it was stored
    tables: tuple[tuple[int, ...], ...] = ()  # of a JPEG: how coarsely


def open_original(data: bytes, *, max_pixels: int) -> Image.Image:
    """The picture: sRGB, upright, RGB or (only if something is transparent) RGBA, without metadata.

    Of an animation, the first frame. Raises `ImageUnreadable`.
    """
    return read(data, max_pixels=max_pixels).image


def read(
    data: bytes, *, max_pixels: int, at_least: int | None = None, formats: tuple[str, ...] = ORIGINALS
) -> Original:
    """The same, with what is known of the file.

    Where `at_least` pixels on the longer side are enough, a JPEG is decoded at a fraction of its size.
    """
    sifted = _sifted(data, max_pixels, formats)
    try:
        with _opened(sifted, max_pixels) as file:
            if at_least is not None:
                file.draft(None, fit(file.size, at_least))
            file.load()
            image, tables = _pixels_of(file), _tables(file)
            profile = sifted.profile or file.info.get("icc_profile")
            orientation = _orientation(sifted.exif or file.info.get("exif"))
        image = _on_nothing(to_srgb(image, profile, sifted.gamma), sifted.box)
        image = _upright(image, orientation)
    except _BROKEN as exc:
        raise ImageUnreadable(f"The file is a damaged {sifted.fmt}, or ends too soon.") from exc
    image.info = {}  # or what it holds would go into everything that is saved from it
    size = sifted.width, sifted.height
    if orientation >= 5:
        size = size[1], size[0]
    return Original(image, size, CONTENT_TYPES[sifted.fmt], sifted.lossy, tables)


def content_type_of(data: bytes, *, max_pixels: int, formats: tuple[str, ...] = ORIGINALS) -> str:
    """What it is, by its header; its pixels are not looked at. Raises `ImageUnreadable`."""
    sifted = _sifted(data, max_pixels, formats)
    try:
        with _opened(sifted, max_pixels):
            return CONTENT_TYPES[sifted.fmt]
    except _BROKEN as exc:
        raise ImageUnreadable(f"The file is a damaged {sifted.fmt}.") from exc


def _sifted(data: bytes, max_pixels: int, formats: tuple[str, ...]) -> Sifted:
    """Refuses, before any decoder is asked, what would take too much of this machine."""
    try:
        sifted = sift(data, formats)
    except Unsound as exc:
        raise ImageUnreadable(f"The file is {exc}.") from exc
    except _BROKEN as exc:
        raise ImageUnreadable("The file contradicts itself.") from exc
    _check_size(sifted.width, sifted.height, max_pixels)
    if sifted.pixels > max_pixels:
        raise ImageUnreadable(f"The image has {sifted.pixels} pixels inside; {max_pixels} are taken at most.")
    if sifted.fmt == "JPEG" and sifted.width * sifted.height > len(sifted.data) * JPEG_PIXELS_PER_BYTE:
        raise ImageUnreadable("The image ends before its last pixel.")
    return sifted


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageUnreadable(
            f"The image has {width}x{height} pixels; {MAX_SIDE} are taken on a side at most."
        )
    if width * height > max_pixels:
        raise ImageUnreadable(f"The image has {width}x{height} pixels; {max_pixels} are taken at most.")


def _opened(sifted: Sifted, max_pixels: int) -> ImageFile.ImageFile:
    """Raises `_BROKEN`, or `ImageUnreadable`."""
    file = Image.open(BytesIO(sifted.data), formats=(sifted.fmt,))
    assert isinstance(file, ImageFile.ImageFile)
    _check_size(*file.size, max_pixels)  # what the decoder will make room for
    if file.size != (sifted.width, sifted.height):
        raise ImageUnreadable("The image contradicts itself about its size.")
    return file


def _pixels_of(file: ImageFile.ImageFile) -> Image.Image:
    """Apart from the file, which holds the decoder's memory, and not copied."""
    return file._new(file.im)


def _tables(file: Image.Image) -> tuple[tuple[int, ...], ...]:
    given: dict[int, list[int]] = getattr(file, "quantization", {})
    return tuple(tuple(given[number]) for number in sorted(given))


def _orientation(exif: bytes | None) -> int:
    """How the camera was held, 1 to 8. Broken EXIF data are none: the picture may still be good."""
    if not exif:
        return 1
    found = Image.Exif()
    try:
        found.load(exif)
        orientation = found.get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _on_nothing(image: Image.Image, box: tuple[int, int, int, int] | None) -> Image.Image:
    """What is around the picture is transparent, as browsers show it; Pillow gives it some colour."""
    if box is None:
        return image
    screen = Image.new("RGBA", image.size)
    screen.paste(image.crop(box), box[:2])
    return screen


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    how = _UPRIGHT.get(orientation)
    return image if how is None else image.transpose(how)

"""Bytes that somebody sent, made into a picture without trusting them."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile

from backend.errors import ImageUnreadable
from backend.images.colour import to_srgb
from backend.images.thumbnails import fit

# Only these are ever tried: Pillow alone would open PostScript and much more.
ORIGINALS = ("PNG", "JPEG", "WEBP")
CONTENT_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # several JPEGs in one file, as some cameras make them
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}

MAX_SIDE = 30_000  # pixels
MAX_FRAMES = 200  # only the first is looked at
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
    try:
        with Image.open(BytesIO(data), formats=formats) as file:
            assert isinstance(file, ImageFile.ImageFile)
            _check_header(file, len(data), max_pixels)
            size, content_type = file.size, CONTENT_TYPES[file.format or ""]
            if at_least is not None:
                file.draft(None, fit(size, at_least))
            orientation = _orientation(file)
            file.load()
            image = _upright(to_srgb(file), orientation)
            image = image.copy() if image is file else image  # a file knows more than its pixels
    except _BROKEN as exc:
        raise ImageUnreadable from exc
    image.info = {}  # or the profile and more would go into everything that is saved from it
    if orientation >= 5:
        size = size[1], size[0]
    return Original(image, size, content_type)


def content_type_of(data: bytes, *, max_pixels: int, formats: tuple[str, ...] = ORIGINALS) -> str:
    """What it is, by its header; its pixels are not looked at. Raises `ImageUnreadable`."""
    try:
        with Image.open(BytesIO(data), formats=formats) as file:
            assert isinstance(file, ImageFile.ImageFile)
            _check_header(file, len(data), max_pixels)
            return CONTENT_TYPES[file.format or ""]
    except _BROKEN as exc:
        raise ImageUnreadable from exc


def _check_header(file: ImageFile.ImageFile, length: int, max_pixels: int) -> None:
    """Refuses, before anything is decoded, what would take too much of this machine."""
    width, height = file.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageUnreadable(f"The image has {width}x{height} pixels; {max_pixels} are taken at most.")
    if getattr(file, "n_frames", 1) > MAX_FRAMES:
        raise ImageUnreadable("The image has too many frames.")
    if file.format in ("JPEG", "MPO") and width * height > length * JPEG_PIXELS_PER_BYTE:
        raise ImageUnreadable("The image ends before its last pixel.")


def _orientation(file: Image.Image) -> int:
    """How the camera was held, 1 to 8. Broken EXIF data are none: the picture may still be good."""
    try:
        found = file.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    how = _UPRIGHT.get(orientation)
    return image if how is None else image.transpose(how)

"""What an image starts from: a picture, and perhaps a mask, made into what a node needs of them."""

from io import BytesIO

from PIL import Image

from backend.images.opening import read

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")  # what cameras, browsers and painting programs write
SHAPE_TOLERANCE = 0.02  # of the ratio of the sides: rounding in a smaller copy gives that much

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def open_reference(data: bytes, *, max_pixels: int) -> Image.Image:
    """The picture: sRGB, upright; what is transparent becomes white. Raises `ImageUnreadable`."""
    return _flat(read(data, max_pixels=max_pixels, formats=FORMATS).image, _WHITE)


def open_mask(data: bytes, *, max_pixels: int) -> Image.Image:
    """The mask, grey; what is transparent becomes black, which is kept. Raises `ImageUnreadable`."""
    return _flat(read(data, max_pixels=max_pixels, formats=FORMATS).image, _BLACK).convert("L")


def have_one_shape(one: Image.Image, other: Image.Image) -> bool:
    """Whether both have the same ratio of sides, whatever their sizes."""
    ratio = (one.width * other.height) / (one.height * other.width)
    return abs(ratio - 1) <= SHAPE_TOLERANCE


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Its middle in the shape of `size`, shrunk to it; one that is smaller stays so."""
    width, height = _largest_within(image.size, size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    box = (left, top, left + width, top + height)
    if width <= size[0]:
        return image.crop(box)
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)


def to_png(image: Image.Image) -> bytes:
    """The same bytes for the same pixels, with nothing beside them."""
    out = BytesIO()
    image.save(out, "PNG", compress_level=4)
    return out.getvalue()


def _flat(image: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    if image.mode == "RGB":
        return image
    flat = Image.new("RGB", image.size, ground)
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def _largest_within(outer: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest size of this shape that lies within `outer`."""
    width = min(outer[0], max(1, round(outer[1] * shape[0] / shape[1])))
    height = min(outer[1], max(1, round(width * shape[1] / shape[0])))
    return width, height

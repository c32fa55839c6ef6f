"""References and masks: every kind of file, made into what a node needs of it."""

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from backend.errors import ImageUnreadable
from backend.images.opening import content_type_of
from backend.images.reference import FORMATS, cover, have_one_shape, open_mask, open_reference, to_png
from tests.backend.images.samples import MAX_PIXELS, corners, encode, png, quarters


def test_a_reference_is_rgb_and_what_is_transparent_is_white() -> None:
    clear = quarters().convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 100, 50))

    opened = open_reference(encode(clear), max_pixels=MAX_PIXELS)

    assert opened.mode == "RGB"
    assert opened.getpixel((10, 10)) == (255, 255, 255)
    assert opened.getpixel((150, 75)) == (220, 220, 20)


def test_a_mask_is_grey_and_what_is_transparent_is_kept() -> None:
    strokes = Image.new("RGBA", (40, 20))  # white strokes on nothing, as a canvas in a page gives them
    strokes.paste((255, 255, 255, 255), (0, 0, 20, 20))

    opened = open_mask(encode(strokes), max_pixels=MAX_PIXELS)

    assert opened.mode == "L"
    assert (opened.getpixel((5, 5)), opened.getpixel((30, 5))) == (255, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_a_mask_in_each_mode(mode: str) -> None:
    half = Image.new("L", (40, 20))
    half.paste(255, (0, 0, 20, 20))

    opened = open_mask(encode(half.convert(mode)), max_pixels=MAX_PIXELS)

    assert (opened.mode, opened.getpixel((5, 5)), opened.getpixel((30, 5))) == ("L", 255, 0)


def test_a_mask_of_16_bits_keeps_its_grey() -> None:
    row = b"\0" + b"".join(struct.pack(">H", value) for value in (0, 32_768, 65_535))

    opened = open_mask(png(3, 1, depth=16, kind=0, data=zlib.compress(row)), max_pixels=MAX_PIXELS)

    assert [opened.getpixel((x, 0)) for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "MPO", "WEBP", "AVIF"])
def test_each_format_that_cameras_and_browsers_write(fmt: str) -> None:
    more = {"save_all": True, "append_images": [quarters().rotate(180)]} if fmt == "MPO" else {}
    data = encode(quarters(), fmt, **more)

    assert corners(open_reference(data, max_pixels=MAX_PIXELS)) == ["red", "green", "blue", "yellow"]
    assert content_type_of(data, max_pixels=MAX_PIXELS, formats=FORMATS).startswith("image/")


@pytest.mark.parametrize("fmt", ["GIF", "TIFF", "BMP", "PPM", "ICO", "TGA"])
def test_no_other_format_is_even_tried(fmt: str) -> None:
    data = encode(quarters(), fmt)

    for refuse in (
        lambda: open_reference(data, max_pixels=MAX_PIXELS),
        lambda: open_mask(data, max_pixels=MAX_PIXELS),
        lambda: content_type_of(data, max_pixels=MAX_PIXELS, formats=FORMATS),
    ):
        with pytest.raises(ImageUnreadable):
            refuse()


def test_cmyk_comes_upright_and_in_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    data = encode(quarters().convert("CMYK"), "JPEG", exif=exif)

    opened = open_reference(data, max_pixels=MAX_PIXELS)

    assert corners(opened) == ["yellow", "blue", "green", "red"]


def test_the_header_alone_tells_a_bomb() -> None:
    for size in ((9_000, 9_000), (40_000, 1)):
        with pytest.raises(ImageUnreadable, match="pixels"):
            content_type_of(png(*size), max_pixels=MAX_PIXELS, formats=FORMATS)


# -- no more than is needed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "asked", "made"),
    [
        ((200, 100), (100, 50), (100, 50)),
        ((200, 100), (50, 50), (50, 50)),
        ((200, 100), (64, 80), (64, 80)),
        ((200, 100), (400, 200), (200, 100)),  # never upscaled
        ((200, 100), (400, 400), (100, 100)),
        ((200, 100), (201, 100), (200, 100)),
        ((1, 3000), (64, 64), (1, 1)),
        ((3000, 1), (64, 64), (1, 1)),
        ((201, 100), (200, 100), (200, 100)),
    ],
)
def test_it_has_the_shape_that_is_asked_for_and_no_more_pixels(
    given: tuple[int, int], asked: tuple[int, int], made: tuple[int, int]
) -> None:
    result = cover(quarters(*given) if min(given) > 1 else Image.new("RGB", given), asked)

    assert abs(result.width - made[0]) <= 1
    assert abs(result.height - made[1]) <= 1


def test_the_middle_is_kept() -> None:
    wide = Image.new("RGB", (300, 100), (255, 0, 0))
    wide.paste((0, 0, 255), (90, 0, 210, 100))

    assert cover(wide, (64, 64)).getcolors() == [(64 * 64, (0, 0, 255))]


def test_the_file_is_the_same_each_time_and_tells_nothing_of_its_origin() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    data = encode(quarters(), "JPEG", exif=exif, comment=b"<script>")

    one, other = (to_png(open_reference(data, max_pixels=MAX_PIXELS)) for _ in range(2))

    assert one == other
    assert b"secret" not in one
    assert b"script" not in one
    assert Image.open(BytesIO(one), formats=["PNG"]).info == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((200, 100), (200, 100), True),
        ((200, 100), (100, 50), True),
        ((1000, 667), (500, 333), True),
        ((200, 100), (100, 200), False),
        ((200, 100), (200, 110), False),
    ],
)
def test_a_mask_has_the_shape_of_its_image(one: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert have_one_shape(Image.new("L", one), Image.new("L", other)) is same

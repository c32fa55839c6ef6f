"""What is written again: in which kind, how large, looking how, and with nothing beside it."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from backend.errors import ImageUnreadable
from backend.images import Optimized, make_boxed_thumbnails, optimize, resize_by
from backend.images.optimizing import MAX_WEBP_SIDE
from tests.backend.images.corpus import FORMATS, MARKERS, good
from tests.backend.images.samples import MAX_PIXELS, corners, encode, quarters


def made_of(data: bytes, **options: Any) -> Optimized:
    return optimize(data, max_pixels=MAX_PIXELS, **options)


def opened(made: Optimized) -> Image.Image:
    image = Image.open(BytesIO(made.data))
    assert Image.MIME[image.format or ""] == made.content_type
    assert image.size == (made.width, made.height)
    return image


def photo(size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Soft shapes with some noise, as a camera gives them."""
    chance = np.random.default_rng(4)
    coarse = Image.fromarray(chance.integers(0, 256, (12, 16, 3), np.uint8))
    soft = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((soft + chance.integers(-6, 7, soft.shape)).clip(0, 255).astype(np.uint8))


def clear_photo() -> Image.Image:
    image = photo()
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def screenshot() -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(image)
    for line in range(14):
        pen.text((10, line * 20), f"line {line} of a window with words in it", (line * 17, 40, 90))
    return image


def cut_out() -> Image.Image:
    """A thing that is photographed, with nothing around it: most of it has one colour."""
    image = Image.new("RGBA", (400, 300))
    image.paste(photo((200, 200)), (100, 50))
    return image


def on_white() -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    image.paste(photo((200, 200)), (100, 50))
    return image


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


# -- the kind of file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "content_type", "lossless"),
    [
        (encode(photo(), "JPEG", quality=95), "image/jpeg", False),
        (encode(photo(), "MPO", save_all=True, append_images=[photo()]), "image/jpeg", False),
        (encode(photo(), "PNG"), "image/jpeg", False),
        (encode(photo().convert("L"), "PNG"), "image/jpeg", False),
        (encode(photo(), "WEBP", lossless=True), "image/jpeg", False),
        (encode(photo(), "WEBP"), "image/webp", False),
        (encode(photo(), "AVIF"), "image/avif", False),
        (encode(clear_photo(), "PNG"), "image/webp", False),
        (encode(clear_photo(), "AVIF"), "image/avif", False),
        (encode(on_white(), "PNG"), "image/jpeg", False),
        (encode(cut_out(), "PNG"), "image/webp", False),
        (encode(screenshot(), "PNG"), "image/webp", True),
        (encode(screenshot(), "WEBP", lossless=True), "image/webp", True),
        (encode(quarters(3, 3), "PNG"), "image/webp", True),
        (encode(photo(), "GIF"), "image/webp", True),
    ],
    ids=[
        "jpeg", "mpo", "photo png", "grey photo png", "photo lossless webp", "webp", "avif",
        "clear photo png", "clear avif", "photo on white", "cut out", "screenshot png", "screenshot webp",
        "tiny", "gif",
    ],
)  # fmt: skip
def test_each_becomes_what_suits_it(data: bytes, content_type: str, lossless: bool) -> None:
    made = made_of(data)

    assert (made.content_type, made.lossless) == (content_type, lossless)
    opened(made)


def test_without_loss_each_pixel_is_the_same() -> None:
    clear = quarters().convert("RGBA")
    clear.paste((9, 8, 7, 100), (50, 20, 90, 60))
    many = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.new("L", (256, 256))]
    )
    drawn = many.resize(
        (1024, 1024), Image.Resampling.NEAREST
    )  # flat, and of more colours than a palette has
    large = Image.new("RGB", (MAX_WEBP_SIDE + 1, 3), (9, 90, 200))  # too long for WebP
    large.paste((200, 9, 9), (0, 0, 5000, 2))

    for image in (quarters(), screenshot(), clear, drawn, large, photo().quantize(64).convert("RGB")):
        made = made_of(encode(image))
        assert made.lossless
        assert opened(made).convert(image.mode).tobytes() == image.tobytes()


def test_a_palette_of_png_is_exact() -> None:
    image = Image.new("RGBA", (MAX_WEBP_SIDE + 1, 4))
    for index in range(255):
        image.paste((index, 255 - index, 7, index), (index * 60, 0, index * 60 + 60, 3))

    made = made_of(encode(image))

    assert opened(made).mode == "P"
    assert opened(made).convert("RGBA").tobytes() == image.tobytes()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_with_loss_nobody_sees_it(fmt: str) -> None:
    made = made_of(encode(photo(), fmt, **({"quality": 95} if fmt != "PNG" else {})))

    assert mean_difference(opened(made), photo()) < 6


def test_opacity_is_kept_exactly() -> None:
    made = made_of(encode(clear_photo()))

    assert opened(made).getchannel("A").tobytes() == clear_photo().getchannel("A").tobytes()


# -- how large --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [20, 50, 75, 85])
@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_what_was_coarse_hardly_grows(fmt: str, quality: int) -> None:
    data = encode(photo((800, 600)), fmt, quality=quality)

    made = made_of(data)

    assert len(made.data) <= len(data) * 1.1
    assert mean_difference(opened(made), Image.open(BytesIO(data))) < 3


def test_what_was_finer_than_needed_shrinks() -> None:
    for data in (encode(photo(), "JPEG", quality=100), encode(photo()), encode(screenshot())):
        assert len(made_of(data).data) < len(data) * 0.7


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_same_bytes_each_time(fmt: str) -> None:
    data = encode(photo(), fmt)

    assert made_of(data, boxes=[(200, 200)]) == made_of(data, boxes=[(200, 200)])


def test_what_is_written_without_loss_is_left_alone_the_next_time() -> None:
    first = made_of(encode(screenshot()))

    second = made_of(first.data)

    assert (first.re_encoded, second.re_encoded) == (True, False)
    assert second.data == first.data


# -- what is beside the pixels ----------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
def test_nothing_is(fmt: str) -> None:
    data = good(fmt)
    assert any(marker in data for marker in MARKERS)

    made = made_of(data, boxes=[(50, 50)])

    for content in (made.data, *(one.data for one in made.thumbnails)):
        assert not [marker for marker in MARKERS if marker in content]
        image = Image.open(BytesIO(content))
        assert not image.getexif()
        assert not {"icc_profile", "exif", "xmp", "comment"} & set(image.info)


# -- smaller ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((200, 100), 0.5, (100, 50)),
        ((201, 101), 0.5, (100, 50)),
        ((3, 1), 0.1, (1, 1)),
        ((64, 48), 1, (64, 48)),
    ],
)
def test_by_a_factor(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    made = made_of(encode(Image.new("RGB", size)), scale=scale)

    assert (made.width, made.height) == expected == opened(made).size


def test_by_a_factor_it_shows_the_same() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3

    made = made_of(encode(quarters(), "JPEG", quality=50, exif=exif), scale=0.5)

    assert corners(opened(made)) == ["yellow", "blue", "green", "red"]


@pytest.mark.parametrize("scale", [0, -1, 1.01, float("nan"), float("inf")])
def test_a_factor_that_is_none(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        resize_by(quarters(), scale)


@pytest.mark.parametrize(
    "size", [(1000, 500), (500, 1000), (300, 299), (201, 200), (100, 50), (1, 900), (37, 4001)]
)
@pytest.mark.parametrize("box", [(200, 200), (200, 50), (64, 128), (1, 1)])
def test_thumbnails_fit_into_their_box(size: tuple[int, int], box: tuple[int, int]) -> None:
    (thumbnail,) = make_boxed_thumbnails(Image.new("RGB", size), [box])

    assert thumbnail.width <= box[0]
    assert thumbnail.height <= box[1]
    if size[0] > box[0] or size[1] > box[1]:  # it touches the box on one side
        assert (
            thumbnail.width == box[0]
            or thumbnail.height == box[1]
            or 1 in (thumbnail.width, thumbnail.height)
        )


def test_thumbnails_come_with_it() -> None:
    made = made_of(
        encode(quarters(1000, 500), "JPEG"), boxes=[(400, 400), (200, 200), (200, 300)], fmt="avif"
    )

    assert [(one.width, one.height) for one in made.thumbnails] == [(200, 100), (400, 200)]
    assert made_of(encode(quarters(), "JPEG")).thumbnails == []
    assert [one.width for one in make_boxed_thumbnails(quarters(1000, 500))] == [200]


# -- what is refused --------------------------------------------------------------------------------------


def test_what_is_no_picture_or_too_large() -> None:
    for data in (b"", b"<svg/>", encode(quarters(), "TIFF"), encode(quarters(200, 100))):
        with pytest.raises(ImageUnreadable):
            optimize(data, max_pixels=19_999)

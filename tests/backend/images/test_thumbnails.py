"""Thumbnails: the right size, never larger, sharp, and the same each time."""

from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from backend.images import Thumbnail, ThumbnailFormat, make_thumbnails
from tests.backend.images.samples import corners, quarters


def sizes_of(thumbnails: list[Thumbnail]) -> list[tuple[int, int]]:
    for one in thumbnails:
        with Image.open(BytesIO(one.data)) as image:
            assert image.size == (one.width, one.height)
            assert Image.MIME[image.format or ""] == one.content_type
    return [(one.width, one.height) for one in thumbnails]


@pytest.mark.parametrize("fmt", ["webp", "avif"])
def test_a_size_is_the_longer_side_and_the_aspect_is_kept(fmt: ThumbnailFormat) -> None:
    assert sizes_of(make_thumbnails(quarters(1000, 500), [512, 128, 256], fmt)) == [
        (128, 64), (256, 128), (512, 256),
    ]  # fmt: skip
    assert sizes_of(make_thumbnails(quarters(500, 1000), [128], fmt)) == [(64, 128)]


def test_nothing_is_enlarged_and_nothing_made_twice() -> None:
    thumbnails = make_thumbnails(quarters(300, 150), [1024, 512, 300, 100, 100], "webp")

    assert sizes_of(thumbnails) == [(100, 50), (300, 150)]


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (1, 1), (3, 2)])
def test_no_side_vanishes(size: tuple[int, int]) -> None:
    for fmt in ("webp", "avif"):
        for width, height in sizes_of(make_thumbnails(Image.new("RGB", size), [128, 64], fmt)):
            assert min(width, height) >= 1


def test_no_sizes_no_thumbnails() -> None:
    assert make_thumbnails(quarters(), [], "webp") == []


@pytest.mark.parametrize("fmt", ["webp", "avif"])
def test_they_show_the_picture(fmt: ThumbnailFormat) -> None:
    for one in make_thumbnails(quarters(1000, 500), [512, 256, 128, 64], fmt):
        assert corners(Image.open(BytesIO(one.data))) == ["red", "green", "blue", "yellow"]


@pytest.mark.parametrize("fmt", ["webp", "avif"])
def test_transparency_is_kept(fmt: ThumbnailFormat) -> None:
    image = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((50, 50, 350, 350), fill=(255, 0, 0, 255))

    (thumbnail,) = make_thumbnails(image, [100], fmt)

    alpha = Image.open(BytesIO(thumbnail.data)).convert("RGBA").getchannel("A")
    assert alpha.getpixel((2, 2)) == 0
    assert alpha.getpixel((50, 50)) == 255


def test_one_made_from_a_larger_one_is_as_good_as_one_from_the_original() -> None:
    drawing = quarters(2048, 2048)
    pen = ImageDraw.Draw(drawing)
    for step in range(0, 2048, 37):
        pen.line((0, step, 2048, 2048 - step), fill="white", width=5)

    chained = make_thumbnails(drawing, [1024, 512, 256, 128], "webp")[0]
    direct = drawing.resize((128, 128), Image.Resampling.LANCZOS)

    difference = ImageChops.difference(Image.open(BytesIO(chained.data)).convert("RGB"), direct)
    assert max(ImageStat.Stat(difference).mean) < 8


def test_the_same_bytes_each_time() -> None:
    image = Image.effect_noise((600, 400), 60).convert("RGB")
    for fmt in ("webp", "avif"):
        assert make_thumbnails(image, [256, 64], fmt) == make_thumbnails(image, [256, 64], fmt)

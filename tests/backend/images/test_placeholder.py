"""Placeholders: a blurhash that looks like the picture, and the colour that one would name."""

import blurhash  # type: ignore[import-untyped]
import pytest
from PIL import Image

from backend.images import blurhash_of, dominant_color
from tests.backend.images.samples import distance


def unhash(text: str, width: int, height: int) -> Image.Image:
    rows = blurhash.decode(text, width, height)
    return Image.frombytes(
        "RGB", (width, height), bytes(value for row in rows for rgb in row for value in rgb)
    )


def rgb(colour: str) -> tuple[int, ...]:
    assert colour.startswith("#")
    return tuple(bytes.fromhex(colour[1:]))


def test_a_blurhash_shows_where_the_colours_are() -> None:
    image = Image.new("RGB", (200, 100), (200, 20, 20))
    image.paste((20, 20, 200), (100, 0, 200, 100))

    shown = unhash(blurhash_of(image), 20, 10)

    left, right = shown.getpixel((3, 5)), shown.getpixel((16, 5))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 2 * left[2]
    assert right[2] > 2 * right[0]


@pytest.mark.parametrize(
    ("size", "components"),
    [
        ((512, 512), (4, 4)),
        ((1600, 900), (5, 3)),
        ((900, 1600), (3, 5)),
        ((2000, 10), (7, 2)),
        ((1, 1), (4, 4)),
    ],
)
def test_detail_goes_along_the_longer_side(size: tuple[int, int], components: tuple[int, int]) -> None:
    text = blurhash_of(Image.new("RGB", size, "teal"))

    assert blurhash.components(text) == components
    assert len(text) == 4 + 2 * components[0] * components[1]


def test_what_is_transparent_is_not_black() -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((240, 120, 0, 255), (30, 30, 70, 70))

    shown = unhash(blurhash_of(image), 10, 10)

    corner = shown.getpixel((0, 0))
    assert isinstance(corner, tuple)
    assert distance(corner, (240, 120, 0)) < 40


def test_the_most_common_colour() -> None:
    image = Image.new("RGB", (100, 100), (180, 60, 30))
    image.paste((20, 120, 160), (0, 0, 100, 30))

    assert distance(rgb(dominant_color(image)), (180, 60, 30)) < 12


def test_a_vivid_colour_goes_before_grey_paper() -> None:
    image = Image.new("RGB", (100, 100), (245, 245, 245))
    image.paste((200, 30, 40), (0, 0, 100, 25))

    assert distance(rgb(dominant_color(image)), (200, 30, 40)) < 12


def test_a_speck_of_colour_does_not() -> None:
    image = Image.new("RGB", (100, 100), (60, 70, 80))
    image.paste((255, 0, 0), (0, 0, 8, 8))

    assert distance(rgb(dominant_color(image)), (60, 70, 80)) < 12


def test_what_is_transparent_has_no_colour() -> None:
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    image.paste((20, 60, 200, 255), (0, 0, 20, 20))

    assert distance(rgb(dominant_color(image)), (20, 60, 200)) < 12
    assert dominant_color(Image.new("RGBA", (10, 10), (1, 2, 3, 0))) == "#ffffff"


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 2)])
def test_tiny_ones(size: tuple[int, int]) -> None:
    for mode in ("RGB", "RGBA"):
        assert dominant_color(Image.new(mode, size, "teal")) == "#008080"
        assert blurhash_of(Image.new(mode, size, "teal"))


def test_the_same_each_time() -> None:
    image = Image.effect_noise((300, 200), 60).convert("RGB")

    assert {blurhash_of(image) for _ in range(3)} == {blurhash_of(image)}
    assert {dominant_color(image) for _ in range(3)} == {dominant_color(image)}

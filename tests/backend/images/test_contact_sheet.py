"""The contact sheet: every picture, in order, whatever their number, shape and state."""

from io import BytesIO

import pytest
from PIL import Image

from backend.images import contact_sheet
from tests.backend.images.samples import distance, encode

COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (200, 180, 30), (150, 40, 160)]


def flat(index: int, size: tuple[int, int] = (400, 400)) -> bytes:
    return encode(Image.new("RGB", size, COLOURS[index % len(COLOURS)]), "WEBP", lossless=True)


def sheet_of(images: list[tuple[bytes, str]]) -> Image.Image:
    image = Image.open(BytesIO(contact_sheet(images)))
    assert image.format == "PNG"
    return image


def order_of(sheet: Image.Image, known: list[tuple[int, int, int]]) -> list[int]:
    """Which pictures are met, reading row by row."""
    small = sheet.resize((sheet.width // 8, sheet.height // 8), Image.Resampling.NEAREST)
    met: list[int] = []
    for y in range(small.height):
        for x in range(small.width):
            pixel = small.getpixel((x, y))
            assert isinstance(pixel, tuple)
            for index, colour in enumerate(known):
                if index not in met and distance(pixel, colour) < 5:
                    met.append(index)
    return met


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_all_are_there_in_their_order(count: int) -> None:
    sheet = sheet_of([(flat(index), f"number {index}") for index in range(count)])

    assert order_of(sheet, COLOURS[:count]) == list(range(count))


@pytest.mark.parametrize("count", [1, 9, 50, 100])
def test_a_sheet_is_never_huge(count: int) -> None:
    sheet = sheet_of([(flat(0, (300, 300)), "")] * count)

    assert max(sheet.size) < 2600


def test_shapes_may_be_mixed() -> None:
    shapes = [(400, 100), (100, 400), (30, 30)]

    sheet = sheet_of([(flat(index, shape), "") for index, shape in enumerate(shapes)])

    assert sorted(order_of(sheet, COLOURS[:3])) == [0, 1, 2]


def test_one_that_can_not_be_read_leaves_its_place_empty() -> None:
    sheet = sheet_of([(flat(0), "good"), (b"junk", "bad"), (flat(2), "good")])

    assert order_of(sheet, COLOURS[:3]) == [0, 2]
    assert sheet_of([(b"junk", "bad")]).width > 100


def test_captions_are_written_where_the_font_can() -> None:
    plain = sheet_of([(flat(0), "x"), (flat(1), " ")])

    assert sheet_of([(flat(0), "A caption"), (flat(1), " ")]).tobytes() != plain.tobytes()
    for caption in ("短い題名", "word " * 300, "x" * 2000, "\x00\n\t"):
        assert sheet_of([(flat(0), caption)]).width == sheet_of([(flat(0), "x")]).width


def test_transparent_ones_show_the_paper() -> None:
    sheet = sheet_of([(encode(Image.new("RGBA", (200, 200), (255, 0, 0, 0))), "")])

    middle = sheet.getpixel((sheet.width // 2, sheet.height // 2))
    assert middle == sheet.getpixel((1, 1))


def test_as_webp() -> None:
    data = contact_sheet([(flat(0), "one")], fmt="webp")

    assert Image.open(BytesIO(data)).format == "WEBP"


def test_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        contact_sheet([])

"""Whoever sends what is not taken is told what it is."""

import pytest
from PIL import Image

from backend.errors import ImageUnreadable
from backend.images import UPLOADS, open_original, optimize
from backend.images.other_kinds import kind_of
from tests.backend.images.samples import MAX_PIXELS, encode, png, quarters


def why(data: bytes) -> str:
    with pytest.raises(ImageUnreadable) as caught:
        optimize(data, max_pixels=MAX_PIXELS)
    return caught.value.detail


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "a HEIC"),  # what telephones make
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "a HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + bytes(99), "a film"),
        (encode(quarters(), "TIFF"), "a TIFF, or a camera's raw file"),
        (encode(quarters(), "BMP"), "a BMP"),
        (encode(quarters(), "ICO"), "an icon (ICO)"),
        (encode(quarters(), "JPEG2000"), "a JPEG 2000"),
        (encode(quarters(), "PDF"), "a PDF"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><title>Sign in</title><svg/>", "an HTML page"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        (b'{"error": "not found"}', "JSON"),
        (b"nothing that is known", "of no kind that is known"),
    ],
)
def test_what_it_is(data: bytes, words: str) -> None:
    assert why(data) == f"The file is {words}; PNG, JPEG, WebP, AVIF and GIF are taken."


@pytest.mark.parametrize("fmt", UPLOADS)
def test_what_is_taken_is_no_other_kind(fmt: str) -> None:
    assert kind_of(encode(quarters(), fmt)) is None


def test_what_is_wrong_with_it() -> None:
    assert why(encode(quarters(), "JPEG")[:300]) == "The file is a JPEG that ends too soon."
    assert why(encode(quarters(), "JPEG")[:-300]) == "The file is a damaged JPEG, or ends too soon."
    assert why(encode(quarters(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9")) == (
        "The file is a JPEG in arithmetic coding, which is not taken."
    )
    assert why(png(30_001, 2)) == "The image has 30001x2 pixels; 30000 are taken on a side at most."


def test_a_kind_that_is_taken_elsewhere() -> None:
    with pytest.raises(ImageUnreadable, match="a GIF; PNG, JPEG and WebP are taken"):
        open_original(encode(Image.new("P", (9, 9)), "GIF"), max_pixels=MAX_PIXELS)

"""What is left of a file before a decoder sees it, and what is known of it by then."""

import struct

import pytest
from PIL import Image

from backend.images import jpeg_segments
from backend.images.sifted import Unsound
from backend.images.sifting import sift
from tests.backend.images.corpus import FORMATS, MARKERS, good
from tests.backend.images.samples import encode, quarters


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_picture_alone_is_left(fmt: str) -> None:
    sifted = sift(good(fmt), FORMATS)

    assert (sifted.fmt, sifted.width, sifted.height) == (fmt, 96, 64)
    assert not [marker for marker in MARKERS if marker in sifted.data]
    if fmt != "GIF":
        assert sifted.profile
        assert sifted.exif


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_sifted_stays_as_it_is(fmt: str) -> None:
    once = sift(good(fmt), FORMATS).data

    assert sift(once, FORMATS).data == once


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_kind_that_is_not_asked_for(fmt: str) -> None:
    with pytest.raises(Unsound):
        sift(good(fmt), [other for other in FORMATS if other != fmt])


@pytest.mark.parametrize("fmt", FORMATS)
def test_wherever_it_is_cut_nothing_else_is_raised(fmt: str) -> None:
    data = good(fmt)
    for length in range(0, len(data), max(len(data) // 400, 1)):
        try:
            sift(data[:length], FORMATS)
        except Unsound:
            continue


def test_all_scans_of_an_honest_jpeg_are_taken() -> None:
    data = encode(quarters(), "JPEG", progressive=True, subsampling=0)
    assert 5 < data.count(b"\xff\xda") < jpeg_segments.MAX_SCANS

    assert sift(data, FORMATS).data.count(b"\xff\xda") == data.count(b"\xff\xda")


def test_restarts_belong_to_the_scan() -> None:
    data = encode(quarters(), "JPEG", restart_marker_blocks=1)
    assert b"\xff\xd0" in data

    assert b"\xff\xd0" in sift(data, FORMATS).data


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_is_as_large_as_what_is_coded_in_it(mode: str) -> None:
    data = encode(Image.new(mode, (640, 480), (9, 9, 9, 9)[: len(mode)]), "AVIF", speed=10)
    small = data.replace(struct.pack(">II", 640, 480), struct.pack(">II", 64, 48))

    sifted = sift(small, FORMATS)

    assert (sifted.width, sifted.height) == (64, 48)
    assert sifted.pixels == 640 * 480

"""Colours by numbers: against what is computed without an ICC profile."""

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.images import UPLOADS
from backend.images.colour_codes import SRGB, profile_of, profile_of_points
from backend.images.opening import read
from tests.backend.images.samples import MAX_PIXELS, chunk, encode

Pixels = NDArray[Any]

P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
BT2020_TO_SRGB = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
P3_POINTS = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290))
PALETTE = np.array([[200, 90, 70], [90, 180, 80], [80, 90, 190], [128, 128, 128], [250, 250, 250], [0, 0, 0]])


def patches() -> Pixels:
    """Each colour large enough that no codec touches its middle."""
    return PALETTE[None].repeat(16, 0).repeat(16, 1).astype(np.uint8)


def shown(data: bytes) -> Pixels:
    """The colours in the middle of the patches."""
    image = read(data, max_pixels=MAX_PIXELS, formats=UPLOADS).image.convert("RGB")
    return np.asarray(image)[8, 8::16].astype(int)


def expected(to_srgb: Pixels) -> Pixels:
    """Of the palette, with the curve of sRGB."""
    levels = PALETTE / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = (light @ to_srgb.T).clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def png_with(*chunks: bytes) -> bytes:
    data = encode(Image.fromarray(patches()))
    return data[:33] + b"".join(chunks) + data[33:]


def avif_with(primaries: int, transfer: int, **options: Any) -> bytes:
    data = encode(Image.fromarray(patches()), "AVIF", quality=100, subsampling="4:4:4", **options)
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def cicp(*numbers: int) -> bytes:
    return chunk(b"cICP", bytes(numbers))


def chrm(points: Any) -> bytes:
    red, green, blue, white = points
    numbers = [round(value * 100_000) for point in (white, red, green, blue) for value in point]
    return chunk(b"cHRM", struct.pack(">8I", *numbers))


@pytest.mark.parametrize(
    ("primaries", "to_srgb"), [(12, P3_TO_SRGB), (9, BT2020_TO_SRGB)], ids=["Display P3", "BT.2020"]
)
def test_a_wide_gamut_by_its_codes(primaries: int, to_srgb: Pixels) -> None:
    assert np.abs(expected(to_srgb) - PALETTE).max() > 10  # or nothing would be shown by this

    assert np.abs(shown(png_with(cicp(primaries, 13, 0, 1))) - expected(to_srgb)).max() <= 2
    assert (
        np.abs(shown(avif_with(primaries, 13)) - expected(to_srgb)).max() <= 8
    )  # its own colours are rounded


def test_a_wide_gamut_by_its_points() -> None:
    assert np.abs(shown(png_with(chrm(P3_POINTS))) - expected(P3_TO_SRGB)).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        (cicp(1, 13, 0, 1),),
        (cicp(1, 1, 0, 1),),  # as television has it
        (cicp(2, 2, 0, 1),),  # not said
        (cicp(99, 13, 0, 1),),
        (cicp(12, 99, 0, 1),),
        (cicp(12, 13, 1, 1),),  # with a matrix
        (cicp(12, 13),),
        (chrm(SRGB),),
        (chrm(P3_POINTS), chunk(b"sRGB", b"\0")),
        (chrm(((0.3, 0.3),) * 4),),  # all the same
        (chrm(((0.3, 0.0),) * 4),),
        (chrm(((9.0, 9.0),) * 4),),
    ],
)
def test_what_is_srgb_or_can_not_be_used_leaves_pixels_alone(chunks: tuple[bytes, ...]) -> None:
    assert (shown(png_with(*chunks)) == PALETTE).all()


def test_codes_count_more_than_a_profile_in_png_and_less_in_avif() -> None:
    p3, bt2020 = profile_of(12, 13), profile_of(9, 13)
    png = encode(Image.fromarray(patches()), icc_profile=bt2020)
    avif = avif_with(12, 13, icc_profile=bt2020)

    png = png[:33] + cicp(12, 13, 0, 1) + png[33:]

    assert p3 is not None
    assert np.abs(shown(png) - expected(P3_TO_SRGB)).max() <= 2
    assert np.abs(shown(avif) - expected(BT2020_TO_SRGB)).max() <= 8


def test_grey_with_a_profile_for_colours_stays_grey() -> None:
    levels = np.arange(0, 256, 16)
    grey = Image.fromarray(levels.astype(np.uint8)[None].repeat(16, 0).repeat(16, 1))

    found = shown(encode(grey, icc_profile=profile_of(12, 8)))

    light = levels / 255
    curved = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(found - curved[:, None]).max() <= 1
    assert (found[:, 0] == found[:, 1]).all()
    assert (found[:, 0] == found[:, 2]).all()


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
def test_hdr_is_toned_down(transfer: int) -> None:
    """White (203 of 1000 nits) is a bright grey, and what is brighter is still told from it."""
    white, grey = {16: (148, 99), 18: (191, 97)}[transfer]  # of 255; grey gives an eighth of that light
    levels = np.array([0, grey, white, (white + 255) // 2, 255], np.uint8)
    image = Image.fromarray(levels[None].repeat(16, 0).repeat(16, 1)).convert("RGB")
    data = encode(image)

    black, middle, bright, brighter, brightest = shown(data[:33] + cicp(9, transfer, 0, 1) + data[33:])[:, 0]

    assert black == 0
    assert 90 <= middle <= 110
    assert 215 <= bright <= 240
    assert bright + 5 < brighter < brightest + 1
    assert brightest >= 254


def test_points_that_no_picture_can_have() -> None:
    assert profile_of_points(SRGB, None) is None
    assert profile_of_points(((0.3, 0.3), (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)), 2.2) is None
    assert profile_of_points(P3_POINTS, 1.0) is not None

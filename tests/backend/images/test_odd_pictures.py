"""Legitimate files that are easily got wrong: by their pixels, against what is computed without Pillow."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.images import UPLOADS, optimize
from backend.images.opening import read
from tests.backend.images.samples import MAX_PIXELS, chunk, encode

Pixels = NDArray[Any]
HEIGHT, WIDTH = 48, 64
FINEST: dict[str, dict[str, Any]] = {  # so that what is lost on the way is no part of the question
    "PNG": {},
    "GIF": {},
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def opened(data: bytes) -> Pixels:
    """Its pixels as numbers: (height, width, 3 or 4)."""
    return np.asarray(read(data, max_pixels=MAX_PIXELS, formats=UPLOADS).image).astype(int)


def picture() -> Pixels:
    """Smooth, so that nothing is lost to chroma subsampling: each channel runs another way."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 4, y * 5, 255 - (x + y) * 2], axis=2).clip(0, 255).astype(np.uint8)


def image() -> Image.Image:
    return Image.fromarray(picture())


def differ(one: Pixels, other: Pixels) -> int:
    """By how much, at most."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def png_of(samples: Pixels, depth: int, kind: int, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG by hand, of (height, width, channels) samples."""
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, kind, 0, 0, int(interlaced))
    data = _passes(samples, depth) if interlaced else _rows(samples, depth)
    pixels = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + pixels + chunk(b"IEND", b"")


def _rows(samples: Pixels, depth: int) -> bytes:
    if depth == 16:
        packed = samples.astype(">u2").view(np.uint8).reshape(samples.shape[0], -1)
    elif depth == 8:
        packed = samples.astype(np.uint8).reshape(samples.shape[0], -1)
    else:
        bits = np.unpackbits(samples.reshape(samples.shape[0], -1, 1).astype(np.uint8), axis=2)[:, :, -depth:]
        packed = np.packbits(bits.reshape(samples.shape[0], -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def _passes(samples: Pixels, depth: int) -> bytes:
    """Adam7."""
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(_rows(samples[y::down, x::across], depth) for y, x, down, across in steps)


# -- depth and channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_each_depth(depth: int, interlaced: bool) -> None:
    samples = (np.mgrid[0:HEIGHT, 0:WIDTH].sum(axis=0) * 601 % 2**depth)[:, :, None]

    found = opened(png_of(samples, depth, 0, interlaced=interlaced))

    expected = samples * 255 / (2**depth - 1)
    assert differ(found, np.repeat(expected, 3, axis=2).astype(int)) <= 1


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
@pytest.mark.parametrize("depth", [8, 16])
def test_channels_of_each_depth(depth: int, kind: int, channels: int) -> None:
    samples = np.random.default_rng(channels).integers(0, 2**depth, (HEIGHT, WIDTH, channels))

    found = opened(png_of(samples, depth, kind))

    eight = samples >> depth - 8
    expected = eight[:, :, [0, 0, 0, 1]] if channels == 2 else eight
    assert differ(found, expected) <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_with_transparency(depth: int) -> None:
    count = 2**depth
    colours = np.random.default_rng(depth).integers(0, 256, (count, 3))
    opacity = np.arange(count) * 255 // (count - 1)
    numbers = (np.mgrid[0:HEIGHT, 0:WIDTH].sum(axis=0) % count)[:, :, None]
    palette = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
    alpha = chunk(b"tRNS", opacity.astype(np.uint8).tobytes())

    found = opened(png_of(numbers, depth, 3, palette, alpha))

    assert differ(found, np.concatenate([colours, opacity[:, None]], axis=1)[numbers[:, :, 0]]) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_grey_that_means_transparent(depth: int) -> None:
    most = 2**depth - 1
    samples = (np.mgrid[0:HEIGHT, 0:WIDTH][1] * 1021 % (most + 1))[:, :, None]
    clear = int(samples[0, 1, 0])

    found = opened(png_of(samples, depth, 0, chunk(b"tRNS", struct.pack(">H", clear))))

    assert ((found[:, :, 3] == 0) == (samples[:, :, 0] == clear)).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_the_colour_that_means_transparent(depth: int) -> None:
    samples = picture().astype(int) << depth - 8
    clear = samples[7, 9]

    found = opened(png_of(samples, depth, 2, chunk(b"tRNS", struct.pack(">3H", *clear.tolist()))))

    assert ((found[:, :, 3] == 0) == (samples == clear).all(axis=2)).all()
    assert found[7, 9, 3] == 0


# -- colour -----------------------------------------------------------------------------------------------

DISPLAY_P3 = [
    [0.4865709, 0.2656677, 0.1982173],
    [0.2289746, 0.6917385, 0.0792869],
    [0.0, 0.0451134, 1.0439444],
]
ADOBE_RGB = [
    [0.5767309, 0.1855540, 0.1881852],
    [0.2973769, 0.6273491, 0.0752741],
    [0.0270343, 0.0706872, 0.9911085],
]
SRGB = [
    [0.4123908, 0.3575843, 0.1804808],
    [0.2126390, 0.7151687, 0.0721923],
    [0.0193308, 0.1191948, 0.9505322],
]
D65, D50 = (0.95047, 1.0, 1.08883), (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of(to_xyz: list[list[float]], gamma: float) -> bytes:
    """An ICC profile by hand (version 2): three colorants, adapted to D50, and one curve."""
    scale = np.diag(BRADFORD @ D50 / (BRADFORD @ D65))
    colorants = np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ np.array(to_xyz)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79),
        b"wtpt": _xyz(D50),
        **{name: _xyz(colorants[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(struct.pack(">i", round(one * 65536)) for one in D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(float(one) * 65536)) for one in values)


def in_srgb(pixels: Pixels, to_xyz: list[list[float]], gamma: float) -> Pixels:
    linear = (pixels / 255) ** gamma @ (np.linalg.inv(SRGB) @ to_xyz).T
    linear = linear.clip(0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((curved * 255).round().astype(int))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("to_xyz", "gamma"), [(DISPLAY_P3, 2.2), (ADOBE_RGB, 2.19921875)], ids=["Display P3", "Adobe RGB"]
)
def test_wide_gamuts(fmt: str, to_xyz: list[list[float]], gamma: float) -> None:
    pixels = picture() // 2 + 64  # away from what sRGB can't show

    found = opened(encode(Image.fromarray(pixels), fmt, icc_profile=profile_of(to_xyz, gamma), **FINEST[fmt]))

    expected = in_srgb(pixels, to_xyz, gamma)
    if fmt in ("PNG", "WEBP"):
        assert differ(found, expected) <= 3
    assert np.abs(found - expected).mean() < 2
    assert differ(pixels, expected) > 20  # or nothing would be shown by this


def test_pure_colours_of_a_wide_gamut_are_as_vivid_as_can_be() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]] * 8, np.uint8)

    found = opened(encode(Image.fromarray(pixels), icc_profile=profile_of(DISPLAY_P3, 2.2)))

    assert differ(found, in_srgb(pixels, DISPLAY_P3, 2.2)) <= 3


@pytest.mark.parametrize("gamma", [1.0, 0.55, 0.3])
def test_gamma(gamma: float) -> None:
    given = chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    linear = (picture() / 255) ** (1 / gamma)
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255

    found = opened(png_of(picture(), 8, 2, given))

    assert differ(found, expected.round()) <= 1
    for counts_more in (chunk(b"sRGB", b"\0"), b""):
        usual = chunk(b"gAMA", struct.pack(">I", 45_455)) if not counts_more else given
        assert differ(opened(png_of(picture(), 8, 2, usual, counts_more)), picture()) == 0


def test_cmyk_as_adobe_inverts_it() -> None:
    cmyk = np.concatenate([picture(), (picture()[:, :, :1] // 3)], axis=2)
    data = encode(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data  # and so its inks are stored inverted

    found = opened(data)

    paper = 255 - cmyk.astype(int)
    assert differ(found, paper[:, :, :3] * paper[:, :, 3:] // 255) <= 6


def test_a_grey_jpeg_and_a_progressive_one() -> None:
    grey = picture()[:, :, 0]

    assert differ(opened(encode(Image.fromarray(grey), "JPEG", quality=98)), np.stack([grey] * 3, 2)) <= 6
    progressive = encode(image(), "JPEG", quality=100, subsampling=0, progressive=True)
    assert b"\xff\xc2" in progressive
    assert differ(opened(progressive), picture()) <= 5


def test_avif_with_opacity() -> None:
    pixels = np.concatenate([picture(), picture()[:, :, 1:2]], axis=2)

    found = opened(encode(Image.fromarray(pixels), "AVIF", quality=100, subsampling="4:4:4"))

    assert differ(found, pixels) <= 6


# -- how it was held, and the first of several ------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation(fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright: dict[int, Pixels] = {  # as the standard says where row 0 and column 0 are
        1: picture(), 2: picture()[:, ::-1], 3: picture()[::-1, ::-1], 4: picture()[::-1],
        5: picture().swapaxes(0, 1), 6: picture()[::-1].swapaxes(0, 1),
        7: picture()[::-1, ::-1].swapaxes(0, 1), 8: picture()[:, ::-1].swapaxes(0, 1),
    }  # fmt: skip

    data = encode(image(), fmt, exif=exif, **FINEST[fmt])

    assert differ(opened(data), upright[orientation]) <= (5 if fmt == "JPEG" else 0)
    made = optimize(data, max_pixels=MAX_PIXELS)
    assert (made.width, made.height) == upright[orientation].shape[1::-1]
    assert differ(opened(made.data), upright[orientation]) <= 40  # quality 85


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "MPO", "AVIF"])
def test_the_first_of_several(fmt: str) -> None:
    first = image().quantize(64) if fmt == "GIF" else image()
    others = [Image.new("RGB", image().size, colour) for colour in ("black", "white", "red")]
    expected = np.asarray(first.convert("RGB"))

    found = opened(encode(first, fmt, save_all=True, append_images=others, **FINEST[fmt]))

    assert differ(found, expected) <= {"MPO": 5, "AVIF": 6}.get(fmt, 0)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP"])
def test_a_first_frame_that_is_smaller_than_the_screen_stands_on_nothing(fmt: str) -> None:
    data = bytearray(encode(Image.new("RGB", (16, 16), (200, 20, 20)).quantize(4), "GIF"))
    if fmt == "WEBP":
        frames = [
            Image.new("RGBA", (16, 16), (200, 20, 20, 255)),
            Image.new("RGBA", (16, 16), (0, 0, 0, 255)),
        ]
        data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = (31).to_bytes(3, "little") * 2
        data[at - 4] |= 0x10
    else:
        data[6:10] = struct.pack("<HH", 32, 32)

    found = opened(bytes(data))

    assert found.shape == (32, 32, 4)
    assert found[8, 8].tolist() == [200, 20, 20, 255]
    assert found[24, 24, 3] == 0

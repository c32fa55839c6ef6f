"""Bytes from anywhere: good ones in every mode, and bad ones of every kind."""

import random
import struct
import threading
import time
import tracemalloc
import zlib

import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from backend.errors import ImageUnreadable
from backend.images import open_original
from backend.images.opening import read
from tests.backend.images.samples import MAX_PIXELS, chunk, corners, distance, encode, png, quarters

UPRIGHT = ["red", "green", "blue", "yellow"]


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    return open_original(data, max_pixels=max_pixels)


# -- what is taken ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_each_format(fmt: str, content_type: str) -> None:
    original = read(encode(quarters(), fmt), max_pixels=MAX_PIXELS)

    assert original.content_type == content_type
    assert original.size == original.image.size == (200, 100)
    assert original.image.mode == "RGB"
    assert corners(original.image) == UPRIGHT


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_each_mode_of_png(mode: str) -> None:
    image = opened(encode(quarters().convert(mode)))

    expected = quarters().convert(mode).convert("RGB")
    assert image.mode == "RGB"  # nothing in it is transparent
    assert image.tobytes() == expected.tobytes()


def test_grey_of_16_bits_is_not_all_white() -> None:
    values = [0, 10_000, 32_768, 50_000, 65_535]
    row = b"\0" + b"".join(struct.pack(">H", value) for value in values)

    image = opened(png(5, 1, depth=16, kind=0, data=zlib.compress(row)))

    assert [image.getpixel((x, 0)) for x in range(5)] == [(value >> 8,) * 3 for value in values]


def test_transparency_stays_where_there_is_some() -> None:
    half = quarters().convert("RGBA")
    half.putalpha(Image.new("L", half.size, 255))
    half.paste((0, 0, 0, 0), (0, 0, 100, 100))

    for data in (encode(half), encode(half, "WEBP", lossless=True), encode(half.quantize(16))):
        image = opened(data)
        assert image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (0, 255)


def test_one_colour_that_stands_for_transparent() -> None:
    for mode, clear in (("L", 76), ("RGB", (200, 20, 20))):
        flat = Image.new(mode, (4, 4), clear)
        flat.putpixel((0, 0), 0)

        image = opened(encode(flat, transparency=clear))

        assert image.mode == "RGBA"
        pixels = [image.getpixel((x, 0)) for x in range(2)]
        assert pixels[0] == (0, 0, 0, 255)
        assert isinstance(pixels[1], tuple)
        assert pixels[1][3] == 0


def test_cmyk() -> None:
    image = opened(encode(quarters().convert("CMYK"), "JPEG", quality=95))

    assert image.mode == "RGB"
    assert corners(image) == UPRIGHT


def test_colours_are_made_srgb_by_their_profile() -> None:
    """The same numbers mean another colour in another space; here red and green have changed places."""
    lab = ImageCms.createProfile("LAB")
    flat = Image.new("RGB", (8, 8), (180, 60, 60))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    same = opened(encode(flat, icc_profile=srgb))
    swapped = opened(encode(flat, icc_profile=with_red_and_green_swapped(srgb)))
    unfit = opened(encode(flat, icc_profile=ImageCms.ImageCmsProfile(lab).tobytes()))
    broken = opened(encode(flat, icc_profile=b"not a profile at all"))

    assert distance(pixel(same), (180, 60, 60)) <= 1
    assert distance(pixel(swapped), (60, 180, 60)) <= 3
    assert pixel(unfit) == pixel(broken) == (180, 60, 60)
    assert "icc_profile" not in swapped.info


def test_a_profile_leaves_transparency_alone() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    flat = Image.new("RGBA", (8, 8), (180, 60, 60, 99))

    image = opened(encode(flat, icc_profile=with_red_and_green_swapped(srgb)))

    found = image.getpixel((0, 0))
    assert isinstance(found, tuple)
    assert found[3] == 99
    assert distance(found[:3], (60, 180, 60)) <= 3


def with_red_and_green_swapped(profile: bytes) -> bytes:
    return profile.replace(b"rXYZ", b"XXXX").replace(b"gXYZ", b"rXYZ").replace(b"XXXX", b"gXYZ")


def pixel(image: Image.Image) -> tuple[float, ...]:
    found = image.getpixel((3, 3))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_however_the_camera_was_held(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = quarters().transpose(undo[orientation]) if orientation > 1 else quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation

    original = read(encode(stored, "JPEG", exif=exif, quality=95), max_pixels=MAX_PIXELS)

    assert original.size == original.image.size == (200, 100)
    assert corners(original.image) == UPRIGHT
    assert not original.image.getexif()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    assert corners(opened(encode(quarters(), "JPEG", exif=exif))) == UPRIGHT


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x01\x02")

    assert corners(opened(data)) == UPRIGHT


def test_no_metadata_stays() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "secret words")
    image = opened(encode(quarters(), pnginfo=text))

    assert image.info == {}
    for fmt in ("PNG", "WEBP", "AVIF"):
        assert b"secret" not in encode(image, fmt)


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(fmt: str) -> None:
    later = Image.new("RGB", (200, 100), "black")
    data = encode(quarters(), fmt, save_all=True, append_images=[later, later.copy()], duration=50)

    assert corners(opened(data)) == UPRIGHT


def test_a_camera_that_stores_two_pictures_in_one_file() -> None:
    data = encode(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (200, 100))])

    original = read(data, max_pixels=MAX_PIXELS)

    assert original.content_type == "image/jpeg"
    assert corners(original.image) == UPRIGHT


def test_a_jpeg_is_decoded_no_larger_than_needed() -> None:
    data = encode(quarters(4001, 2001), "JPEG")

    original = read(data, max_pixels=MAX_PIXELS, at_least=500)

    assert original.size == (4001, 2001)
    assert 500 <= original.image.width <= 1100
    assert corners(original.image) == UPRIGHT


# -- what is not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not a picture", b"<html></html>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)  # fmt: skip
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ImageUnreadable):
        opened(data)


@pytest.mark.parametrize("fmt", ["BMP", "GIF", "TIFF", "PPM", "ICO", "TGA", "AVIF"])
def test_formats_that_are_not_asked_for(fmt: str) -> None:
    with pytest.raises(ImageUnreadable):
        opened(encode(quarters(64, 64), fmt))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_file(fmt: str, kept: float) -> None:
    noisy = Image.effect_noise((300, 300), 90).convert("RGB")
    data = encode(noisy, fmt)

    with pytest.raises(ImageUnreadable):
        opened(data[: int(len(data) * kept)])


@pytest.mark.parametrize("size", [(13_000, 13_000), (9400, 9400), (60_000, 60_000), (1, 40_000)])
def test_a_bomb_is_refused_before_it_goes_off(size: tuple[int, int]) -> None:
    data = png(*size, kind=6, data=zlib.compress(b"\0" * 1000))
    tracemalloc.start()
    started = time.thread_time()
    with pytest.raises(ImageUnreadable):
        opened(data)
    taken, (_, peak) = time.thread_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 1
    assert peak < 10_000_000


def test_the_bound_is_on_pixels_and_can_be_chosen() -> None:
    data = encode(quarters(200, 100))

    assert opened(data, 20_000).size == (200, 100)
    with pytest.raises(ImageUnreadable, match="200x100"):
        opened(data, 19_999)


def test_a_tiny_jpeg_that_claims_to_be_huge() -> None:
    data = bytearray(encode(Image.new("RGB", (64, 64), "gray"), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 6000, 6000)

    with pytest.raises(ImageUnreadable):
        opened(bytes(data))


@pytest.mark.parametrize("options", [{"quality": 1}, {"quality": 1, "progressive": True, "optimize": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_plain_jpeg_is_not_taken_for_one(mode: str, options: dict[str, int]) -> None:
    """The most pixels in the fewest bytes that an honest encoder makes."""
    data = encode(Image.new(mode, (4000, 4000)), "JPEG", **options)

    assert opened(data).size == (4000, 4000)


def test_text_that_unpacks_to_no_end_is_not_unpacked() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 80_000_000))
    whole = encode(quarters())

    assert corners(opened(whole[:33] + bomb + whole[33:])) == UPRIGHT


def test_of_many_frames_only_the_first_counts() -> None:
    frames = [Image.new("RGB", (8, 8), (index % 256, 0, index // 256)) for index in range(300)]

    image = opened(encode(frames[0], save_all=True, append_images=frames[1:]))

    assert image.tobytes() == frames[0].tobytes()


@pytest.mark.filterwarnings("ignore")  # Pillow also says what it finds odd
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_are_a_picture_or_unreadable_and_nothing_else(fmt: str) -> None:
    chance = random.Random(fmt)
    exif = Image.Exif()
    exif[0x0112] = 6
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    good = encode(quarters(48, 32), fmt, exif=exif, icc_profile=srgb)
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            image = opened(bytes(data), 10**6)
        except ImageUnreadable:
            continue
        assert image.mode in ("RGB", "RGBA")


def test_several_threads_get_the_same() -> None:
    drawing = quarters(300, 300)
    ImageDraw.Draw(drawing).ellipse((50, 50, 200, 250), fill="white")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [encode(drawing, fmt, icc_profile=srgb) for fmt in ("PNG", "JPEG", "WEBP")] * 4
    alone = [opened(data).tobytes() for data in files]
    together: dict[int, bytes] = {}

    def work(number: int) -> None:
        together[number] = opened(files[number]).tobytes()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [together[number] for number in range(len(files))] == alone

"""All of it at once, as `save_images` does it: from several threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from backend.errors import ImageUnreadable
from backend.images import prepare
from tests.backend.images.samples import MAX_PIXELS, encode, quarters


def test_one_original() -> None:
    prepared = prepare(encode(quarters(1000, 600), "WEBP"), [512, 256, 128], "webp", MAX_PIXELS)

    assert (prepared.width, prepared.height, prepared.content_type) == (1000, 600, "image/webp")
    assert [(one.width, one.height) for one in prepared.thumbnails] == [(128, 77), (256, 154), (512, 307)]
    assert prepared.blurhash
    assert len(prepared.color) == 7


def test_the_size_is_the_originals_even_where_a_jpeg_was_decoded_smaller_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    prepared = prepare(encode(quarters(4000, 3000), "JPEG", exif=exif), [256], "webp", MAX_PIXELS)

    assert (prepared.width, prepared.height) == (3000, 4000)
    assert [(one.width, one.height) for one in prepared.thumbnails] == [(192, 256)]


def test_without_sizes() -> None:
    assert prepare(encode(quarters()), [], "webp", MAX_PIXELS).thumbnails == []


def test_what_is_no_image() -> None:
    with pytest.raises(ImageUnreadable):
        prepare(b"", [128], "webp", MAX_PIXELS)


def test_threads_and_repetition_change_nothing() -> None:
    noise = Image.effect_noise((700, 500), 60).convert("RGB")
    files = [encode(noise, fmt) for fmt in ("PNG", "JPEG", "WEBP")] * 3

    alone = [prepare(data, [256, 64], "webp", MAX_PIXELS) for data in files]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda data: prepare(data, [256, 64], "webp", MAX_PIXELS), files))

    assert together == alone

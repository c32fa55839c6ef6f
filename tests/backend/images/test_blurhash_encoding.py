"""The same text as the package `blurhash` gives, character by character."""

import blurhash  # type: ignore[import-untyped]
import numpy as np
import pytest
from PIL import Image

from backend.images.blurhash_encoding import encode
from tests.backend.images.samples import quarters


@pytest.mark.parametrize(("across", "down"), [(1, 1), (4, 4), (7, 2), (2, 7), (9, 9)])
@pytest.mark.parametrize("size", [(32, 32), (32, 18), (1, 1), (5, 30)])
def test_as_the_package_does_it(size: tuple[int, int], across: int, down: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for pixels in (noise, np.asarray(quarters(*size)), np.full_like(noise, 200), np.zeros_like(noise)):
        assert encode(pixels, across, down) == blurhash.encode(pixels.tolist(), across, down)


def test_a_photograph_like_one() -> None:
    coarse = np.random.default_rng(4).integers(0, 256, (4, 4, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((32, 24), Image.Resampling.BICUBIC))

    assert encode(pixels, 5, 3) == blurhash.encode(pixels.tolist(), 5, 3)

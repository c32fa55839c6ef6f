"""Previews of unfinished images: what the latents tell, in a few kilobytes, and at once."""

import io
import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gpu_worker.engines.diffusers.families import FAMILIES, load
from gpu_worker.engines.diffusers.families.base import Row, Run
from gpu_worker.engines.diffusers.preview import LONGEST_SIDE, LatentPreview
from tests.gpu_worker.engines.diffusers.conftest import TinyModels

CHANNELS = 4


def hidden(picture: torch.Tensor, seed: int = 3) -> torch.Tensor:
    """Latents that hold a picture (h, w, 3) linearly, as those of real autoencoders nearly do."""
    mixing = torch.randn(3, CHANNELS, generator=torch.Generator().manual_seed(seed))
    return (picture @ mixing).permute(2, 0, 1) - 1.5


def scene(seed: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """A smooth picture (h, w, 3) of levels from 0 to 1."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth[0].permute(1, 2, 0)


def by_cell(pixels: torch.Tensor, cells: torch.Size) -> torch.Tensor:
    """(H, W, 3) -> the mean of each cell: within one, autoencoders of random weights scribble."""
    picture = pixels.permute(2, 0, 1).float()[None]
    return torch.nn.functional.adaptive_avg_pool2d(picture, (cells[0], cells[1]))[0].permute(1, 2, 0)


def as_pixels(picture: torch.Tensor, factor: int = 8) -> torch.Tensor:
    levels = (picture * 255).round().to(torch.uint8)
    return levels.repeat_interleave(factor, 0).repeat_interleave(factor, 1)


def opened(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG"
    return picture


def alike(jpeg: bytes, picture: torch.Tensor) -> float:
    """The correlation of both, small."""
    size = (picture.shape[1], picture.shape[0])
    seen: NDArray[np.float64] = np.asarray(opened(jpeg).resize(size), dtype=np.float64)
    return float(np.corrcoef(seen.ravel(), picture.numpy().ravel())[0, 1])


def learned() -> LatentPreview:
    preview = LatentPreview()
    preview.fit(hidden(scene(1)), as_pixels(scene(1)))
    return preview


def test_shows_another_picture_than_the_one_it_learned_from() -> None:
    preview = learned()

    jpeg = preview.jpeg(hidden(scene(2)))

    assert alike(jpeg, scene(2)) > 0.95
    assert alike(jpeg, scene(1)) < 0.7


def test_shows_it_through_noise_of_any_scale() -> None:
    noise = torch.randn(CHANNELS, 32, 32, generator=torch.Generator().manual_seed(5))

    jpeg = learned().jpeg(14 * (hidden(scene(2)) + 0.1 * noise))

    assert alike(jpeg, scene(2)) > 0.6


def test_is_not_ready_before_it_has_learned() -> None:
    preview = LatentPreview()
    assert not preview.ready

    preview.fit(torch.zeros(CHANNELS, 8, 8), torch.zeros(64, 64, 3, dtype=torch.uint8))
    preview.fit(torch.full((CHANNELS, 8, 8), torch.nan), torch.zeros(64, 64, 3, dtype=torch.uint8))
    assert not preview.ready

    assert learned().ready


@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 32, (256, 256)), (16, 64, (256, 64)), (64, 16, (64, 256))]
)
def test_has_the_shape_of_the_image(height: int, width: int, size: tuple[int, int]) -> None:
    assert opened(learned().jpeg(torch.randn(CHANNELS, height, width))).size == size


def test_is_as_small_as_it_is_asked_to_be() -> None:
    jpeg = learned().jpeg(hidden(scene(2)), longest_side=64)

    assert opened(jpeg).size == (64, 64)
    assert len(jpeg) < 8_000


def test_what_is_not_a_number_is_shown_all_the_same() -> None:
    broken = hidden(scene(2))
    broken[0, 3, 3] = torch.nan
    broken[1, 5, 5] = torch.inf

    assert opened(learned().jpeg(broken)).size == (LONGEST_SIDE, LONGEST_SIDE)


@pytest.mark.parametrize("family", FAMILIES)
def test_learns_from_real_latents(tiny_models: TinyModels, family: str) -> None:
    adapter = load(tiny_models[family], family, dtype=torch.float32)
    run, preview, told = Run("text-to-image", 128, 64, 2, 0.0), LatentPreview(), []
    row = Row(adapter.encode("a red fox", None, cfg=False), torch.Generator().manual_seed(1))

    with torch.inference_mode():
        latents = adapter.denoise(run, [row], lambda *_: None)
        pixels, spatial = adapter.decode(latents, run)[0], adapter.spatial(latents, run)[0]
        preview.fit(spatial, pixels)
        started = time.thread_time()
        told = [preview.jpeg(spatial) for _ in range(10)]
        spent_s = (time.thread_time() - started) / 10

    assert opened(told[0]).size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert len(told[0]) < 20_000
    assert alike(told[0], by_cell(pixels, spatial.shape[1:])) > 0.25
    assert spent_s < 0.1

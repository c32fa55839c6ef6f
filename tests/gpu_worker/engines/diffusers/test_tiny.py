"""The tiny models are what they are taken for: small, safe, the same each time, and alive."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.tiny import BUILDERS, build

LARGEST_BYTES = 6_000_000


@pytest.mark.parametrize("family", BUILDERS)
def test_is_small_and_only_safetensors(tiny_models: TinyModels, family: str) -> None:
    files = [path for path in tiny_models[family].rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".jinja"}


@pytest.mark.parametrize("family", ["sd15", "z-image"])
def test_is_the_same_each_time(tiny_models: TinyModels, tmp_path: Path, family: str) -> None:
    torch.manual_seed(7)

    again = build(family, tmp_path)

    for path in tiny_models[family].rglob("*.safetensors"):
        ours, theirs = load_file(path), load_file(again / path.relative_to(tiny_models[family]))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", [family for family in BUILDERS if family != "sana"])  # it makes 1024x1024
def test_prompt_and_seed_change_the_picture(tiny_models: TinyModels, family: str) -> None:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_models[family], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)

    def levels(prompt: str, seed: int) -> NDArray[np.float64]:
        generator = torch.Generator().manual_seed(seed)
        made = pipe(prompt, height=64, width=64, num_inference_steps=2, generator=generator, output_type="np")
        return np.asarray(made.images, dtype=np.float64) * 255

    fox = levels("a red fox", 1)

    assert fox.shape == (1, 64, 64, 3)
    assert fox.std() > 5
    assert abs(fox - levels("the blue sea", 1)).max() > 4
    assert abs(fox - levels("a red fox", 2)).max() > 4

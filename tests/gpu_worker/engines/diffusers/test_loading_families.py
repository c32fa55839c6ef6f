"""What `load` takes, and what it leaves: safetensors alone, no foreign code, nothing in the log."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpu_worker.engines.diffusers.families import load
from gpu_worker.engines.diffusers.families.base import Row, Run
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes
from tests.gpu_worker.engines.diffusers.conftest import TinyModels


@pytest.fixture
def copied(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """A model of the family sd15 that a test may change."""
    return Path(shutil.copytree(tiny_models["sd15"], tmp_path / "model"))


def test_a_pickle_is_not_opened(copied: Path) -> None:
    (weights,) = (copied / "unet").glob("*.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()

    with pytest.raises(OSError, match="safetensors"):
        load(copied, "sd15", dtype=torch.float32)


def test_code_in_the_folder_is_not_run(copied: Path, tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    (copied / "unet" / "custom.py").write_text(f"open({str(witness)!r}, 'w').close()\nclass Custom: ...\n")
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"unet": ["custom", "Custom"]}))

    with pytest.raises(ValueError, match="custom"):
        load(copied, "sd15", dtype=torch.float32)

    assert not witness.exists()


def test_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        load(tmp_path, "sd15", dtype=torch.float32)


def test_a_catalog_may_change_the_scheduler(tiny_models: TinyModels) -> None:
    options = {"timestep_spacing": "trailing"}

    adapter = load(tiny_models["sdxl"], "sdxl", dtype=torch.float32, scheduler_options=options)

    assert adapter.pipe.scheduler.config.timestep_spacing == "trailing"


def test_weights_are_of_the_dtype_that_was_asked_for(tiny_models: TinyModels) -> None:
    adapter = load(tiny_models["flux"], "flux", dtype=torch.bfloat16)

    modules = [part for part in adapter.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {parameter.dtype for module in modules for parameter in module.parameters()} == {torch.bfloat16}


def test_weights_are_ordinary_tensors_even_where_gradients_are_off(tiny_models: TinyModels) -> None:
    with torch.inference_mode():
        adapter = load(tiny_models["sd15"], "sd15", dtype=torch.float32)

    assert not any(parameter.is_inference() for parameter in adapter.denoiser().parameters())


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_prompts_are_not_told_to_the_log(
    tiny_models: TinyModels, family: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).propagate = True
    adapter = load(tiny_models[family], family, dtype=torch.float32)

    encoded = adapter.encode("a secret " * 200, None, cfg=False)
    with torch.inference_mode():
        adapter.denoise(
            Run("text-to-image", 64, 64, 2, 0.0), [Row(encoded, torch.Generator())], lambda *_: None
        )

    told = "".join([caplog.text, *capfd.readouterr()])
    assert encoded.truncated
    assert "secret" not in told
    assert "%|" not in told  # a progress bar


def test_an_autoencoder_that_overflows_works_in_float32_and_goes_back(tiny_models: TinyModels) -> None:
    vae = load(tiny_models["sdxl"], "sdxl", dtype=torch.float16).pipe.vae
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        picture = decoded(vae, latents.half())

    assert picture.dtype == torch.float32
    assert vae.dtype == torch.float16
    assert to_bytes(picture).dtype == torch.uint8


def test_an_interrupted_decode_leaves_the_autoencoder_as_it_was(tiny_models: TinyModels) -> None:
    vae = load(tiny_models["sdxl"], "sdxl", dtype=torch.float16).pipe.vae

    with pytest.raises(RuntimeError, match="channels"):
        decoded(vae, torch.zeros(1, 3, 8, 8))

    assert vae.dtype == torch.float16


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "z-image", "qwen-image"])
def test_the_tasks_share_the_modules(tiny_models: TinyModels, family: str) -> None:
    adapter = load(tiny_models[family], family, dtype=torch.bfloat16)
    pipelines = adapter._pipelines  # type: ignore[attr-defined]  # the adapters' own

    for task in adapter.pipelines:
        other = pipelines.of(task)
        assert type(other).__name__ == adapter.pipelines[task]
        assert other.components.keys() >= {"vae", "scheduler"}
        assert all(other.components[name] is part for name, part in adapter.pipe.components.items() if part)
    assert adapter.denoiser().dtype == torch.bfloat16

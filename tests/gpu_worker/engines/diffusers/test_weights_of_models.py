"""The torch-free look at a model's files, held against the loaded pipelines and against diffusers itself."""

import time
from pathlib import Path

import diffusers
import pytest
import torch

from gpu_worker.engines.diffusers.catalog import ModelEntry
from gpu_worker.engines.diffusers.download import Hub
from gpu_worker.engines.diffusers.families import FAMILIES, load
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS
from gpu_worker.engines.diffusers.hub import wanted_of
from gpu_worker.engines.diffusers.schedulers import SCHEDULERS
from gpu_worker.engines.diffusers.weights import inspect, inspect_lora
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.hub_server import COMMIT, Repository, running_hub
from tests.gpu_worker.engines.diffusers.tiny import BUILDERS
from tests.gpu_worker.engines.diffusers.tiny_loras import DENOISER, build_lora

FAMILY_OF = {kind: next(name for name in (kind, "flux") if name in FAMILY_FACTS) for kind in BUILDERS}


def bytes_of(pipe: diffusers.DiffusionPipeline, dtype: torch.dtype) -> int:
    """Of all parameters and buffers that are saved; shared ones once."""
    modules = [one for one in pipe.components.values() if isinstance(one, torch.nn.Module)]
    tensors = {id(one): one for module in modules for one in module.state_dict(keep_vars=True).values()}
    sizes = [
        one.numel() * (dtype.itemsize if one.is_floating_point() else one.element_size())
        for one in tensors.values()
    ]
    return sum(sizes)


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_weight_of_a_model_is_foretold(tiny_models: TinyModels, kind: str) -> None:
    folder = tiny_models[kind]
    begun = time.thread_time()
    found = inspect(folder, FAMILY_OF[kind])
    took = time.thread_time() - begun
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        assert found.bytes_as(name) == pytest.approx(bytes_of(pipe, dtype), rel=0.0003)
    assert found.pipeline == type(pipe).__name__
    assert took < 1  # 2 ms on a machine with nothing else to do


@pytest.mark.parametrize("kind", BUILDERS)
def test_what_is_fetched_of_a_repository_is_enough_to_load_it(
    tiny_models: TinyModels, tmp_path: Path, kind: str
) -> None:
    folder, family = tiny_models[kind], FAMILY_OF[kind]
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    more = {"all_in_one.safetensors": b"...", "README.md": b"#", "run.py": b"raise SystemExit"}
    entry = ModelEntry(alias="mine", source="owner/name", family=family, license="MIT")
    with running_hub() as hub:
        hub.repositories["owner/name"] = Repository({COMMIT: files | more})
        place = Hub(tmp_path, hub.url).download(wanted_of(entry))
    adapter = load(place.path, family, dtype=torch.float32)
    assert adapter.family == family
    assert not hub.fetched() & set(more)


def test_what_is_said_of_families_without_torch_is_so() -> None:
    assert set(FAMILIES) == set(FAMILY_FACTS)
    for name, facts in FAMILY_FACTS.items():
        assert all(hasattr(diffusers, pipeline) for pipeline in facts.pipelines.values()), name
        assert set(facts.schedulers) <= set(SCHEDULERS), name
        assert "text-to-image" in facts.pipelines


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "z-image", "qwen-image"])
def test_a_lora_that_diffusers_saves_is_not_taken_for_another_family(
    tiny_models: TinyModels, tmp_path: Path, family: str
) -> None:
    denoiser = [*DENOISER, "add_q_proj", "img_mlp.net.0.proj"] if family in {"sd3", "qwen-image"} else None
    file = build_lora(tiny_models[family], tmp_path / "lora.safetensors", denoiser=denoiser)
    found = inspect_lora(file)
    assert found.family == (None if family in {"sd15", "sdxl"} else family)  # tiny texts have no known width
    assert found.tensors > 0

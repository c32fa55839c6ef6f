"""What is told of a catalog's models: here or not, how large, what fits. Runs without torch."""

from pathlib import Path

import pytest

from gpu_worker.engines.diffusers.catalog import Catalog, Defaults, Limits, LoraEntry, ModelEntry, Safety
from gpu_worker.engines.diffusers.examination import Examined, Memory, examine, told
from gpu_worker.engines.diffusers.hub import UnknownModel
from tests.gpu_worker.engines.diffusers.small_models import LORA, safetensors, sdxl_files, write

GB = 1_000_000_000
ROOM = GB + 3_000 * 512 * 512


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", sdxl_files())


def entry(source: Path | str, **more: object) -> ModelEntry:
    small = {"defaults": Defaults(width=512, height=512), "limits": Limits(min_size=512)}
    base = {"alias": "mine", "source": str(source), "family": "sdxl", "license": "MIT", **small}
    return ModelEntry.model_validate({**base, **more})


def look(one: ModelEntry, tmp_path: Path, *memory: int | None, named: bool = False) -> Examined:
    devices = [Memory(f"cuda {index}", size) for index, size in enumerate(memory)]
    return examine(Catalog(models={"mine": one}), ["mine"] * named, tmp_path / "cache", devices)[0]


def test_a_model_that_is_here_is_told_with_its_size_and_what_it_needs(folder: Path, tmp_path: Path) -> None:
    found = look(entry(folder), tmp_path, 80 * GB)
    weights = found.bytes_on_disk
    assert weights == 4 * (64 * 32 + 64) * 4
    assert found.device_bytes == weights // 2 + ROOM  # bfloat16
    assert found.fits == {"cuda 0": "fits"}
    assert (found.here, found.faults) == (True, ())
    assert found.revision is not None
    assert f"mine (sdxl): here at {found.revision[:12]}" in list(told(found))


def test_half_of_the_denoiser_is_enough_with_fp8(folder: Path, tmp_path: Path) -> None:
    whole, eighth = (look(entry(folder, fp8=fp8), tmp_path).device_bytes or 0 for fp8 in (False, True))
    assert whole - eighth == (64 * 32 + 64) * 2 // 2


def test_what_fits_is_told_for_each_device(folder: Path, tmp_path: Path) -> None:
    needs = look(entry(folder), tmp_path).device_bytes or 0
    found = look(entry(folder), tmp_path, needs, needs - 1, ROOM, None)
    assert found.fits == {"cuda 0": "fits", "cuda 1": "offload", "cuda 2": "too large", "cuda 3": "unknown"}
    assert found.faults == ()
    models = Catalog(models={"mine": entry(folder)})
    (on_the_cpu,) = examine(models, [], tmp_path, [Memory("cpu", needs, half=False)])
    assert on_the_cpu.fits == {"cpu": "offload"}  # it takes four bytes for a number
    never = look(entry(folder, offload="never"), tmp_path, needs - 1)
    assert never.faults == ("it fits into no device of this machine",)


def test_a_model_that_is_not_here_is_a_fault_only_where_it_is_asked_for(tmp_path: Path) -> None:
    what_to_do = "the model is not downloaded: fanfare-node download mine"
    anyone = look(entry("owner/name"), tmp_path)
    assert (anyone.here, anyone.faults, anyone.notes) == (False, (), (what_to_do,))
    assert look(entry("owner/name"), tmp_path, named=True).faults == (what_to_do,)
    with pytest.raises(UnknownModel, match="no model theirs"):
        examine(Catalog(models={}), ["theirs"], tmp_path)


def test_files_that_are_not_loaded_are_a_fault(folder: Path, tmp_path: Path) -> None:
    (folder / "unet/code.py").write_text("")
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"short")
    faults = look(entry(folder), tmp_path).faults
    assert faults[0] == "it brings code of its own (unet/code.py)"
    assert "is cut off" in faults[1]


def test_loras_and_checkers_are_looked_at_too(folder: Path, tmp_path: Path) -> None:
    flux = {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": ("F32", (4, 8))}
    write(tmp_path, {"good.safetensors": safetensors(LORA), "flux.safetensors": safetensors(flux),
                     "bad.safetensors": b"x"})  # fmt: skip
    loras = {
        name: LoraEntry(source=str(tmp_path / f"{name}.safetensors")) for name in ("good", "flux", "bad")
    }
    loras["far"] = LoraEntry(source="owner/lora", file="far.safetensors")
    checked = Safety(mode="refuse", source="owner/checker")
    found = look(entry(folder, loras=loras, safety=checked), tmp_path)
    assert found.faults == (
        "the LoRA flux seems to be made for flux, not for sdxl",
        "the LoRA bad: bad.safetensors is cut off within its header, or no safetensors file",
    )
    assert found.notes == (
        "the safety checker is not downloaded: fanfare-node download mine",
        "the LoRA far is not downloaded: fanfare-node download mine",
    )
    assert "  safety checker: refuse" in list(told(found))

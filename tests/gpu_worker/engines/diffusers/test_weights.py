"""What is in a model's folder, and what is refused: with files of a few bytes, without torch."""

import json
import os
import time
from pathlib import Path

import pytest

from gpu_worker.engines.diffusers.safetensors_header import MAX_HEADER_BYTES, BadHeader, read_header
from gpu_worker.engines.diffusers.weights import (
    UnusableLora,
    UnusableModel,
    choose,
    digest,
    inspect,
    inspect_lora,
)
from tests.gpu_worker.engines.diffusers.small_models import (
    LORA,
    SDXL,
    SHAPES,
    safetensors,
    sdxl_files,
    write,
)

UNET = "unet/diffusion_pytorch_model.safetensors"
PARAMETERS = 64 * 32 + 64  # of each component


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", sdxl_files())


def refused(folder: Path, family: str = "sdxl", variant: str | None = None) -> str:
    with pytest.raises(UnusableModel) as caught:
        inspect(folder, family, variant)
    return "; ".join(caught.value.faults)


def index(folder: Path, **changes: object) -> None:
    (folder / "model_index.json").write_text(json.dumps({**SDXL, **changes}))


# -- what it weighs --------------------------------------------------------------------------------------


def test_weights_are_counted_by_component_and_type(folder: Path) -> None:
    found = inspect(folder, "sdxl")
    weighing = {one.name: one.parameters for one in found.components if one.files}
    assert weighing == dict.fromkeys(["text_encoder", "text_encoder_2", "unet", "vae"], PARAMETERS)
    assert found.pipeline == "StableDiffusionXLPipeline"
    assert found.bytes_on_disk == found.bytes_as("float32") == 4 * PARAMETERS * 4
    assert found.bytes_as("bfloat16") == found.bytes_as("auto") == 4 * PARAMETERS * 2


def test_whole_numbers_stay_as_they_are(folder: Path) -> None:
    write(folder, {UNET: safetensors({"a": ("F32", (10,)), "ids": ("I64", (3,))})})
    unet = next(one for one in inspect(folder, "sdxl").components if one.name == "unet")
    assert (unet.bytes_as("float32"), unet.bytes_as("bfloat16")) == (40 + 24, 20 + 24)


def test_the_variant_counts_where_there_is_one(folder: Path) -> None:
    write(folder, {"unet/diffusion_pytorch_model.fp16.safetensors": safetensors(SHAPES["F16"])})
    files = {one.name: one.files for one in inspect(folder, "sdxl", "fp16").components}
    assert files["unet"] == ("unet/diffusion_pytorch_model.fp16.safetensors",)
    assert files["vae"] == ("vae/diffusion_pytorch_model.safetensors",)


def test_shards_are_counted_together_and_each_must_be_there(folder: Path) -> None:
    (folder / UNET).unlink()
    shards = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    table = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}
    one = safetensors(SHAPES["F32"])
    write(folder, {f"unet/{shard}": one for shard in shards})
    write(folder, {"unet/diffusion_pytorch_model.safetensors.index.json": json.dumps(table).encode()})
    unet = next(part for part in inspect(folder, "sdxl").components if part.name == "unet")
    assert unet.parameters == 2 * PARAMETERS
    (folder / "unet" / shards[1]).unlink()
    assert refused(folder) == "unet: 1 of 2 files of its weights are missing"


def test_of_two_sets_of_weights_that_one_counts_which_its_library_reads() -> None:
    for base, first in {"model": 1, "diffusion_pytorch_model": 0}.items():
        both = [f"{base}.safetensors.index.json", f"{base}.safetensors"]
        assert choose(both, None) == (both[first],)


def test_parts_that_are_not_loaded_do_not_count(folder: Path) -> None:
    index(folder, feature_extractor=["transformers", "CLIPImageProcessor"], image_encoder=["odd", "Thing"])
    assert {one.name for one in inspect(folder, "sdxl").components} >= {"unet", "scheduler"}


def test_it_takes_no_time(folder: Path) -> None:
    begun = time.thread_time()
    inspect(folder, "sdxl")
    assert time.thread_time() - begun < 0.2


# -- what is refused -------------------------------------------------------------------------------------


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == "there is no such folder"
    assert "no model_index.json" in refused(tmp_path)
    write(tmp_path, {"sdxl.safetensors": b""})
    assert "a single file of all weights is not taken" in refused(tmp_path)
    write(tmp_path, {"model_index.json": b"[1"})
    assert refused(tmp_path) == "model_index.json can't be understood"


@pytest.mark.parametrize("suffix", ["bin", "ckpt", "pt"])
def test_pickles_are_refused_and_never_opened(folder: Path, suffix: str) -> None:
    (folder / UNET).unlink()
    os.mkfifo(folder / f"unet/diffusion_pytorch_model.{suffix}")  # who opens it waits for ever
    assert refused(folder).startswith("unet: its weights are pickles, which can run code")


def test_pickles_beside_safetensors_do_no_harm(folder: Path) -> None:
    write(folder, {"unet/diffusion_pytorch_model.bin": b"pickle"})
    assert inspect(folder, "sdxl")


def test_missing_weights_and_components_are_all_told(folder: Path) -> None:
    (folder / UNET).unlink()
    for path in (folder / "vae").iterdir():
        path.unlink()
    (folder / "vae").rmdir()
    assert refused(folder) == "unet: no weights; vae is missing"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, "it brings a pipeline of its own, which is code"),
        ({"custom_pipeline": "mine"}, "it brings a pipeline of its own, which is code"),
        ({"_class_name": "FluxPipeline"}, "it is a FluxPipeline, which is not of the family sdxl"),
        ({"unet": ["unet_mine", "Unet"]}, "unet is not of diffusers or transformers, but code of its own"),
        ({"unet": ["diffusers", "os.system"]}, "unet is not of diffusers or transformers"),
        ({"unet": ["diffusers", 3]}, "unet is not of diffusers or transformers"),
        ({"../unet": ["diffusers", "UNet"]}, "'../unet' is no component's name"),
    ],
)
def test_code_and_other_pipelines_are_refused(folder: Path, changes: dict[str, object], fault: str) -> None:
    index(folder, **changes)
    assert fault in refused(folder)


def test_code_beside_the_weights_is_refused(folder: Path) -> None:
    write(folder, {"unet/modeling.py": b"", "text_encoder/config.json": b'{"auto_map": {}}'})
    assert "code of its own (unet/modeling.py)" in refused(folder)
    assert "code of its own (text_encoder/config.json: auto_map)" in refused(folder)


def test_links_may_not_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    (folder / UNET).rename(secret)
    (folder / UNET).symlink_to(secret)
    assert refused(folder) == f"{UNET} is a link to outside of its folder"


def test_links_within_the_hubs_cache_are_its_way(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache/models--o--n/snapshots/0"
    blob = tmp_path / "cache/models--o--n/blobs/1"
    snapshot.parent.mkdir(parents=True)
    blob.parent.mkdir()
    folder.rename(snapshot)
    (snapshot / UNET).rename(blob)
    (snapshot / UNET).symlink_to("../../../blobs/1")
    assert inspect(snapshot, "sdxl")


WHOLE = safetensors(SHAPES["F32"])


def header(text: str, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + data


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is cut off within its header"),
        (WHOLE[:20], "is cut off within its header"),
        (WHOLE[:-1], "is cut off: 1 bytes are missing"),
        (WHOLE + b"more", "holds more than its header says"),
        (b"PK\x03\x04" + b"\0" * 100, "is cut off within its header, or no safetensors"),
        (header("[1]"), "has a header that can't be understood"),
        (header("[" * 100_000), "has a header that can't be understood"),
        (header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}', b"8" * 8), "can't be und"),
        (header('{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}', b"4444"), "can't be und"),
        (header('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"4444"), "can't be und"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(folder: Path, content: bytes, fault: str) -> None:
    (folder / UNET).write_bytes(content)
    assert f"{UNET} " in refused(folder)
    assert fault in refused(folder)


def test_a_header_as_large_as_memory_is_not_read(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.safetensors"
    with bomb.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(10**10)  # a hole: takes no disk
    with pytest.raises(BadHeader, match="has a header of"):
        read_header(bomb)


# -- LoRAs -----------------------------------------------------------------------------------------------


def test_a_lora_is_told_by_its_layers(tmp_path: Path) -> None:
    file = write(tmp_path, {"a.safetensors": safetensors(LORA)}) / "a.safetensors"
    found = inspect_lora(file)
    assert (found.family, found.tensors, found.bytes) == ("sdxl", 2, 4 * (4 * 2048 + 640 * 4))


@pytest.mark.parametrize(
    ("layer", "width", "family"),
    [
        ("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight", 768, "sd15"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", 768, "sd15"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 1280, "sdxl"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", 3072, "flux"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 3072, "flux"),
        ("transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight", 1536, "sd3"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", 3072, "qwen-image"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", 3840, "z-image"),
        ("transformer.transformer_blocks.0.attn2.to_k.lora_A.weight", 2240, "sana"),
        ("something.lora_A.weight", 5, None),
    ],
)
def test_the_family_of_a_lora_is_guessed(tmp_path: Path, layer: str, width: int, family: str | None) -> None:
    write(tmp_path, {"a.safetensors": safetensors({layer: ("F32", (4, width))})})
    assert inspect_lora(tmp_path / "a.safetensors").family == family


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.bin": b"", "b.safetensors": WHOLE, "c.safetensors": WHOLE[:30]})
    for name, fault in {
        "a.bin": "only .safetensors",
        "b.safetensors": "no LoRA",
        "c.safetensors": "cut off",
    }.items():
        with pytest.raises(UnusableLora, match=fault):
            inspect_lora(tmp_path / name)


# -- the digest of a folder ------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    copy = write(tmp_path / "copy", sdxl_files())
    before = digest(folder)
    assert digest(copy) == before
    assert len(before) == 40
    (folder / ".hidden").write_text("of no account")
    assert digest(folder) == before
    os.utime(folder / UNET, (1, 1))
    assert digest(folder) == before


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_other_weights_of_the_same_shape_have_another_digest(folder: Path, place: float) -> None:
    file = folder / UNET
    file.write_bytes(safetensors({"a": ("F32", (500_000,))}))
    before = digest(folder)
    content = bytearray(file.read_bytes())
    content[int(100 + place * (len(content) - 101))] ^= 1
    file.write_bytes(content)
    assert digest(folder) != before

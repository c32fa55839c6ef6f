"""LoRAs: exactly those that are wanted work, and those that can't be used leave no trace."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch._dynamo.testing import CompileCounter

from gpu_worker.engines.diffusers.loras import LoraNotUsable, Loras
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.tiny_loras import Tensors, build_lora, changed

Pixels = NDArray[np.float32]
Make = Callable[[Path, Path, TinyModels], Path]
FAMILIES = ["sd15", "sdxl", "sd3", "flux", "z-image", "qwen-image"]
WITH_TEXT_ENCODER = ["sd15", "sdxl", "sd3", "flux"]


def open_pipe(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: DiffusionPipeline) -> Pixels:
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(1)
        made = pipe(
            "a fox", height=64, width=64, num_inference_steps=2, generator=generator, output_type="np"
        )
    return np.asarray(made.images[0], dtype=np.float32)


def same(one: Pixels, other: Pixels) -> bool:
    return bool(np.array_equal(one, other))


@pytest.fixture(scope="session")
def lora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="session")
def ink(tiny_models: TinyModels, lora_folder: Path) -> Path:
    return build_lora(tiny_models["sd15"], lora_folder / "ink.safetensors", seed=1)


@pytest.fixture(scope="session")
def chalk(tiny_models: TinyModels, lora_folder: Path) -> Path:
    """Changes the text encoder, too."""
    return build_lora(tiny_models["sd15"], lora_folder / "chalk.safetensors", seed=2, text_encoder=True)


@pytest.fixture
def sd15(tiny_models: TinyModels) -> DiffusionPipeline:
    return open_pipe(tiny_models["sd15"])


# -- what is wanted works, and nothing else --------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_works_while_it_is_in_use_and_leaves_no_trace(
    tiny_models: TinyModels, tmp_path: Path, family: str
) -> None:
    # Given a model, and a LoRA made for its family
    file = build_lora(tiny_models[family], tmp_path / "one.safetensors")
    pipe = open_pipe(tiny_models[family])
    bare = picture(pipe)
    loras = Loras(pipe)

    # When it is put on, taken off and put on again
    assert loras.use([("one", file, 1.0)]) == (("one", 1.0),)
    on = picture(pipe)
    assert loras.use([]) == ()
    off = picture(pipe)
    loras.use([("one", file, 1.0)])

    # Then it changes the picture when it is on, always in the same way, and not at all when it is off
    assert not same(on, bare)
    assert same(off, bare)
    assert same(picture(pipe), on)


@pytest.mark.parametrize("family", WITH_TEXT_ENCODER)
def test_changes_the_text_encoder(tiny_models: TinyModels, tmp_path: Path, family: str) -> None:
    file = build_lora(tiny_models[family], tmp_path / "words.safetensors", denoiser=[], text_encoder=True)
    pipe = open_pipe(tiny_models[family])
    bare = picture(pipe)
    loras = Loras(pipe)

    loras.use([("words", file, 1.0)])
    on, key = picture(pipe), loras.text_key()
    loras.use([("words", file, 0.5)])
    weaker, other_key = picture(pipe), loras.text_key()
    loras.use([])

    assert not same(on, bare)
    assert not same(on, weaker)
    assert len({key, other_key, loras.text_key()}) == 3
    assert same(picture(pipe), bare)


def test_prompts_need_no_other_encoding_when_only_the_denoiser_changes(
    sd15: DiffusionPipeline, ink: Path, chalk: Path
) -> None:
    loras = Loras(sd15)

    loras.use([("ink", ink, 1.0)])
    without = loras.text_key()
    loras.use([("ink", ink, 1.0), ("chalk", chalk, 1.0)])
    both = loras.text_key()
    loras.use([("ink", ink, 0.3), ("chalk", chalk, 1.0)])

    assert without == ()
    assert both != ()
    assert loras.text_key() == both


def test_weight_counts_and_zero_is_none(sd15: DiffusionPipeline, ink: Path) -> None:
    bare = picture(sd15)
    loras = Loras(sd15)
    seen = []
    for weight in (1.0, 0.5, -1.0):
        loras.use([("ink", ink, weight)])
        seen.append(picture(sd15).tobytes())
    assert len({*seen, bare.tobytes()}) == 4

    assert loras.use([("ink", ink, 0.0)]) == ()
    assert same(picture(sd15), bare)


def test_order_does_not_matter(tiny_models: TinyModels, ink: Path, chalk: Path) -> None:
    one, other = open_pipe(tiny_models["sd15"]), open_pipe(tiny_models["sd15"])
    by_hand = Loras(one)
    by_hand.use([("chalk", chalk, 0.7)])  # loaded first

    assert by_hand.use([("ink", ink, 0.5), ("chalk", chalk, 0.7)]) == (("chalk", 0.7), ("ink", 0.5))
    Loras(other).use([("chalk", chalk, 0.7), ("ink", ink, 0.5)])

    assert same(picture(one), picture(other))


def test_has_the_precision_of_the_model(tiny_models: TinyModels, chalk: Path) -> None:
    pipe = open_pipe(tiny_models["sd15"], torch.bfloat16)

    Loras(pipe).use([("chalk", chalk, 1.0)])

    for part in (pipe.unet, pipe.text_encoder):
        halves = [tensor for name, tensor in part.named_parameters() if "lora_" in name]
        assert halves
        assert {tensor.dtype for tensor in halves} == {torch.bfloat16}


def test_alias_may_have_dots(sd15: DiffusionPipeline, ink: Path) -> None:
    assert Loras(sd15).use([("ink-v1.2", ink, 1.0)]) == (("ink-v1.2", 1.0),)


def test_published_as_kohya_does(sd15: DiffusionPipeline, ink: Path, tmp_path: Path) -> None:
    """With underscores for dots, down and up for A and B, and an alpha for each layer."""

    def to_kohya(tensors: Tensors) -> Tensors:
        told: Tensors = {}
        for key, tensor in tensors.items():
            layer, half = key.removeprefix("unet.").removesuffix(".weight").rsplit(".", 1)
            name = "lora_unet_" + layer.replace(".", "_")
            told[f"{name}.lora_{'down' if half == 'lora_A' else 'up'}.weight"] = tensor
            told[f"{name}.alpha"] = torch.tensor(1.0)  # of rank 2: half as strong
        return told

    loras = Loras(sd15)
    loras.use([("ink", ink, 0.5)])
    expected = picture(sd15)
    loras.use([("kohya", changed(ink, tmp_path / "kohya.safetensors", to_kohya), 1.0)])

    assert same(picture(sd15), expected)


# -- what stays loaded -----------------------------------------------------------------------------


def test_forgets_what_was_not_used_for_the_longest(
    tiny_models: TinyModels, sd15: DiffusionPipeline, tmp_path: Path
) -> None:
    files = [build_lora(tiny_models["sd15"], tmp_path / f"{n}.safetensors", seed=n) for n in range(3)]
    first, second, third = files
    loras = Loras(sd15, max_loaded=2)
    loras.use([("first", first, 1.0)])
    as_it_was = picture(sd15)

    loras.use([("second", second, 1.0)])
    loras.use([("first", first, 1.0)])
    loras.use([("third", third, 1.0)])
    assert set(loras.loaded) == {first, third}

    loras.use([(str(n), file, 1.0) for n, file in enumerate(files)])  # more than stay: all work
    assert set(loras.loaded) == set(files)
    loras.use([("first", first, 1.0)])
    assert len(loras.loaded) == 2
    assert same(picture(sd15), as_it_was)


def test_reads_a_file_once(sd15: DiffusionPipeline, ink: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(ink.read_bytes())
    loras = Loras(sd15)
    loras.use([("copy", copy, 1.0)])
    on = picture(sd15)
    copy.unlink()

    loras.use([])
    loras.use([("copy", copy, 1.0)])

    assert same(picture(sd15), on)


# -- what is refused -------------------------------------------------------------------------------


def of_another_family(ink: Path, to: Path, models: TinyModels) -> Path:
    return build_lora(models["z-image"], to)


def of_its_big_sister(ink: Path, to: Path, models: TinyModels) -> Path:
    """Partly the same names, with other shapes."""
    return build_lora(models["sdxl"], to)


def a_pickle(ink: Path, to: Path, models: TinyModels) -> Path:
    torch.save({"unet.lora_A.weight": torch.zeros(1)}, to.with_suffix(".bin"))
    return to.with_suffix(".bin")


def a_pickle_in_disguise(ink: Path, to: Path, models: TinyModels) -> Path:
    torch.save({"unet.lora_A.weight": torch.zeros(1)}, to)
    assert zipfile.is_zipfile(to)
    return to


def an_old_pickle_in_disguise(ink: Path, to: Path, models: TinyModels) -> Path:
    torch.save({"unet.lora_A.weight": torch.zeros(1)}, to, _use_new_zipfile_serialization=False)
    return to


def truncated(ink: Path, to: Path, models: TinyModels) -> Path:
    to.write_bytes(ink.read_bytes()[:-100])
    return to


def nothing_at_all(ink: Path, to: Path, models: TinyModels) -> Path:
    to.write_bytes(b"")
    return to


def not_there(ink: Path, to: Path, models: TinyModels) -> Path:
    return to


def a_folder(ink: Path, to: Path, models: TinyModels) -> Path:
    to.mkdir()
    return to


def without_tensors(ink: Path, to: Path, models: TinyModels) -> Path:
    return changed(ink, to, lambda tensors: {})


def with_a_nan(ink: Path, to: Path, models: TinyModels) -> Path:
    def spoil(tensors: Tensors) -> Tensors:
        next(iter(tensors.values()))[0, 0] = float("nan")
        return tensors

    return changed(ink, to, spoil)


def with_a_wrong_shape(ink: Path, to: Path, models: TinyModels) -> Path:
    def spoil(tensors: Tensors) -> Tensors:
        key = next(key for key in tensors if "lora_A" in key)
        return tensors | {key: torch.ones(tensors[key].shape[0], tensors[key].shape[1] + 1)}

    return changed(ink, to, spoil)


def with_one_half_missing(ink: Path, to: Path, models: TinyModels) -> Path:
    return changed(ink, to, lambda tensors: dict(list(tensors.items())[1:]))


def with_layers_that_are_not_there(ink: Path, to: Path, models: TinyModels) -> Path:
    extra = {f"unet.far_away.to_q.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    return changed(ink, to, lambda tensors: tensors | extra)


def a_dora(ink: Path, to: Path, models: TinyModels) -> Path:
    return changed(ink, to, lambda tensors: tensors | {"unet.layer.dora_scale": torch.ones(1)})


def a_whole_model(ink: Path, to: Path, models: TinyModels) -> Path:
    to.write_bytes((models["sd15"] / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    return to


REFUSED: dict[Make, str] = {
    of_another_family: "family",
    of_its_big_sister: "no place",
    a_pickle: ".safetensors",
    a_pickle_in_disguise: "damaged",
    an_old_pickle_in_disguise: "damaged",
    truncated: "damaged",
    nothing_at_all: "damaged",
    not_there: "not there",
    a_folder: "damaged",
    without_tensors: "empty",
    with_a_nan: "not numbers",
    with_a_wrong_shape: "no place",
    with_one_half_missing: "no place",
    with_layers_that_are_not_there: "no place",
    a_dora: "DoRA",
    a_whole_model: "family",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_refuses_and_leaves_all_as_it_was(
    tiny_models: TinyModels,
    sd15: DiffusionPipeline,
    ink: Path,
    tmp_path: Path,
    make: Make,
) -> None:
    # Given a model that works with a LoRA, and a file that it can't use
    bad = make(ink, tmp_path / "bad.safetensors", tiny_models)
    bare = picture(sd15)
    loras = Loras(sd15)

    # When the file is asked for, alone on the bare model, and beside the good one
    with pytest.raises(LoraNotUsable, match=REFUSED[make]) as told:
        loras.use([("bad", bad, 1.0)])
    untouched = picture(sd15)
    loras.use([("ink", ink, 1.0)])
    on = picture(sd15)
    with pytest.raises(LoraNotUsable):
        loras.use([("bad", bad, 1.0), ("ink", ink, 0.4)])

    # Then it is refused, without telling where it is, and the pictures are those from before, bit for bit
    assert str(tmp_path) not in str(told.value)
    assert same(untouched, bare)
    assert same(picture(sd15), on)
    loras.use([])
    assert same(picture(sd15), bare)


def test_refuses_what_is_no_weight_and_what_is_named_twice(sd15: DiffusionPipeline, ink: Path) -> None:
    loras = Loras(sd15)
    with pytest.raises(LoraNotUsable, match="not a number"):
        loras.use([("ink", ink, float("nan"))])
    with pytest.raises(LoraNotUsable, match="twice"):
        loras.use([("ink", ink, 0.5), ("ink", ink, 0.5)])


def test_what_fails_half_way_is_taken_out_again(
    sd15: DiffusionPipeline, ink: Path, chalk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The denoiser has the LoRA, and then memory runs out at the text encoder."""
    loras = Loras(sd15)
    loras.use([("ink", ink, 1.0)])
    on = picture(sd15)

    def no_room(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(sd15.text_encoder, "load_adapter", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            loras.use([("ink", ink, 1.0), ("chalk", chalk, 1.0)])

    assert same(picture(sd15), on)
    assert loras.use([("chalk", chalk, 1.0)]) == (("chalk", 1.0),)


# -- in place, for compiled models -----------------------------------------------------------------


@pytest.fixture(scope="session")
def wide(tiny_models: TinyModels, lora_folder: Path) -> Path:
    return build_lora(tiny_models["sd15"], lora_folder / "wide.safetensors", seed=3, rank=4)


@pytest.fixture(scope="session")
def narrow(tiny_models: TinyModels, lora_folder: Path) -> Path:
    """Changes fewer layers."""
    return build_lora(tiny_models["sd15"], lora_folder / "narrow.safetensors", seed=4, denoiser=["to_q"])


def close(one: Pixels, other: Pixels) -> bool:
    return bool(np.abs(one - other).max() < 1e-5)


def test_swapped_in_place_it_works_the_same(
    tiny_models: TinyModels, sd15: DiffusionPipeline, ink: Path, chalk: Path, wide: Path, narrow: Path
) -> None:
    pipe = open_pipe(tiny_models["sd15"])
    swapping, plain = Loras(pipe, in_place=True), Loras(sd15)
    bare = picture(pipe)
    row: list[list[tuple[str, Path, float]]] = [
        [("narrow", narrow, 1.0)],
        [("ink", ink, 0.5)],
        [],
        [("wide", wide, 1.0)],
        [("ink", ink, 0.5), ("wide", wide, 0.5)],  # not in one place
        [("narrow", narrow, -1.0)],
        [("chalk", chalk, 1.0)],  # the text encoder can't be swapped
        [("ink", ink, 1.0)],
        [],
    ]

    for wanted in row:
        assert swapping.use(wanted) == plain.use(wanted)
        assert close(picture(pipe), picture(sd15)), wanted

    assert same(picture(pipe), bare)


def test_refused_in_place_it_leaves_all_as_it_was(
    tiny_models: TinyModels, sd15: DiffusionPipeline, ink: Path, wide: Path, tmp_path: Path
) -> None:
    loras = Loras(sd15, in_place=True)
    loras.use([("wide", wide, 0.5)])
    on = picture(sd15)

    with pytest.raises(LoraNotUsable):
        loras.use([("bad", with_a_wrong_shape(ink, tmp_path / "bad.safetensors", tiny_models), 1.0)])

    assert same(picture(sd15), on)


def test_swapped_in_place_nothing_is_compiled_again(
    sd15: DiffusionPipeline, ink: Path, wide: Path, narrow: Path
) -> None:
    # Given blocks that are compiled (to what doesn't matter here), warm with a LoRA and after one
    counter = CompileCounter()
    for block in sd15.unet.modules():
        if type(block).__name__ == "BasicTransformerBlock":
            block.compile(backend=counter)
    loras = Loras(sd15, in_place=True)
    for warm_up in ([], [("wide", wide, 1.0)], []):
        loras.use(warm_up)
        picture(sd15)
    compiled = counter.frame_count

    # When others take its place, with other ranks, weights and layers
    for wanted in ([("ink", ink, 0.5)], [], [("narrow", narrow, 0.7)], [("wide", wide, 0.2)], []):
        loras.use(wanted)
        picture(sd15)

    # Then the graphs still serve
    assert compiled > 0
    assert counter.frame_count == compiled

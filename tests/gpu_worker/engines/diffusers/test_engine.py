"""The engine on tiny models: batches, seeds, cancels, models that come and go, and files that are refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from contract.messages import FailureCode
from gpu_worker.engines.base import CANCELED, EngineLost, Failure, Picture
from gpu_worker.engines.diffusers.catalog import Limits
from gpu_worker.engines.diffusers.weights import inspect
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.rig import SIZE, STEPS, Rig, Watching, entry, same, seeds

FIVE = ("sdxl", "sd15", "flux", "sd3", "z-image")


@pytest.fixture(scope="module")
def five(tiny_models: TinyModels) -> Iterator[Rig]:
    rig = Rig(*(entry(f"tiny-{family}", family, tiny_models[family]) for family in FIVE))
    yield rig
    rig.close()


@pytest.fixture
def sdxl(tiny_models: TinyModels) -> Iterator[Rig]:
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]))
    yield rig
    rig.close()


@pytest.mark.parametrize("family", FIVE)
def test_each_family_is_served_and_says_how(five: Rig, family: str) -> None:
    picture = five.picture(model=f"tiny-{family}", width=64, height=96)

    assert (picture.image.size, picture.image.mode) == ((64, 96), "RGB")
    assert len(picture.image.getcolors(10_000) or []) > 50
    told = dict(picture.made_with)
    assert told["engine"] == "diffusers"
    assert told["family"] == family
    assert len(str(told["revision"])) == 40
    assert (told["steps"], told["seed"], told["batch"], told["dtype"]) == (STEPS, 1, 1, "float32")
    assert {"scheduler", "guidance", "device", "torch_version", "diffusers_version"} <= set(told)
    assert "ladder" not in told
    assert picture.spent is not None
    assert picture.spent.denoise_s > 0


def test_all_five_are_there_at_once(five: Rig) -> None:
    for family in FIVE:
        five.picture(model=f"tiny-{family}")

    assert set(five.engine.state().loaded) == {f"tiny-{family}" for family in FIVE}
    assert [card.family for card in five.engine.models()] == list(FIVE)


def test_a_seed_is_an_image(sdxl: Rig) -> None:
    one, again, other = (sdxl.picture(seed=seed) for seed in (1, 1, 2))

    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize("family", FIVE)
@pytest.mark.parametrize("strict_batch", [1, 3])
def test_reproducible_images_depend_on_nothing_beside_them(
    tiny_models: TinyModels, family: str, strict_batch: int
) -> None:
    rig = Rig(entry("tiny", family, tiny_models[family], strict_batch=strict_batch))
    alone = rig.picture("wanted", seed=9, reproducible=True)
    rig.pictures(*seeds(rig, 3))
    wanted = rig.request("wanted", seed=9, reproducible=True)
    at_once = rig.engine.max_batch(rig.engine.batch_key(wanted))
    assert at_once == (1 if family == "z-image" else strict_batch)  # whose prompts are padded to each other
    neighbours = seeds(rig, at_once - 1, reproducible=True)

    beside = rig.pictures(*neighbours, wanted)
    first = rig.pictures(wanted, *neighbours)

    assert same(alone, beside[-1])
    assert same(alone, first[0])
    assert alone.made_with["reproducible"] is True
    rig.close()


def test_the_images_of_a_batch_are_each_their_own(sdxl: Rig) -> None:
    requests = seeds(sdxl, 4)

    pictures = sdxl.pictures(*requests)

    assert len({picture.image.tobytes() for picture in pictures}) == 4
    assert {picture.made_with["batch"] for picture in pictures} == {4}
    for request, picture in zip(requests, pictures, strict=True):
        (solo,) = sdxl.pictures(request)
        assert _largest_difference(solo, picture) <= 1


def _largest_difference(one: Picture, other: Picture) -> int:
    pairs = zip(one.image.tobytes(), other.image.tobytes(), strict=True)
    return max(abs(left - right) for left, right in pairs)


def test_options_change_the_image(sdxl: Rig) -> None:
    plain = sdxl.picture()
    options: list[dict[str, Any]] = [
        {"steps": 7},
        {"guidance": 9.0},
        {"scheduler": "dpmpp-2m"},
        {"negative_prompt": "a storm"},
    ]

    for changes in options:
        changed = sdxl.picture(**changes)
        assert not same(plain, changed), changes
        for name, value in changes.items():
            assert name == "negative_prompt" or changed.made_with[name] == value


def test_a_long_prompt_is_said_to_be_cut(sdxl: Rig) -> None:
    assert "prompt_truncated" not in sdxl.picture("short").made_with
    assert sdxl.picture("a very long story " * 60).made_with["prompt_truncated"] is True


# -- pictures to start from --------------------------------------------------------------------------------


def half_and_half() -> Image.Image:
    image = Image.new("RGB", (300, 200), "navy")
    ImageDraw.Draw(image).rectangle((150, 0, 300, 200), fill="orange")
    return image


@pytest.mark.parametrize("family", FIVE)
def test_image_to_image_keeps_more_of_its_reference_the_weaker_it_is(five: Rig, family: str) -> None:
    reference = half_and_half()
    weak, strong = (
        five.picture(
            model=f"tiny-{family}", task="image-to-image", reference=reference, strength=strength, steps=8
        )
        for strength in (0.3, 1.0)
    )

    assert not same(weak, strong)
    assert weak.made_with["task"] == "image-to-image"
    assert weak.made_with["strength"] == 0.3


def test_inpainting_makes_anew_what_is_white_and_keeps_the_rest_as_it_was(five: Rig) -> None:
    reference = half_and_half().resize((SIZE, SIZE))
    mask = Image.new("L", (SIZE, SIZE), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, SIZE // 2 - 1, SIZE), fill=255)

    image = five.picture(
        model="tiny-sd15", task="inpainting", reference=reference, mask=mask, strength=1.0, steps=6
    ).image

    left, right = (0, 0, SIZE // 2, SIZE), (SIZE // 2, 0, SIZE, SIZE)
    assert same(image.crop(right), reference.crop(right))
    assert not same(image.crop(left), reference.crop(left))


def test_progress_in_image_to_image_counts_the_steps_that_are_made(sdxl: Rig) -> None:
    watch = Watching()
    request = sdxl.request(task="image-to-image", reference=half_and_half(), strength=0.5, steps=8)

    sdxl.pictures(request, watch=watch)

    assert watch.fractions[request.id] == [pytest.approx((step + 1) / 5) for step in range(4)]


# -- cancel ------------------------------------------------------------------------------------------------


def test_a_canceled_batch_ends_within_a_step_and_leaves_no_trace(tiny_models: TinyModels) -> None:
    fresh = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]))
    used = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]))
    watch = Watching(lambda request_id: len(watch.fractions[request_id]) >= 2)
    requests = seeds(used, 3, steps=50)

    outcomes = used.generate(*requests, watch=watch)

    assert outcomes == [CANCELED] * 3
    assert [len(watch.fractions[request.id]) for request in requests] == [2, 2, 2]
    assert same(fresh.picture("next"), used.picture("next"))
    fresh.close()
    used.close()


def test_a_canceled_image_is_left_out_and_its_neighbours_go_on(sdxl: Rig) -> None:
    gone, *others = seeds(sdxl, 3)
    watch = Watching(lambda request_id: request_id == gone.id and len(watch.fractions[gone.id]) >= 1)

    outcomes = sdxl.generate(gone, *others, watch=watch)

    assert outcomes[0] == CANCELED
    assert all(isinstance(outcome, Picture) for outcome in outcomes[1:])


def test_who_was_canceled_before_is_not_begun(sdxl: Rig) -> None:
    gone, other = seeds(sdxl, 2)
    watch = Watching(lambda request_id: request_id == gone.id)

    outcomes = sdxl.generate(gone, other, watch=watch)

    assert outcomes[0] == CANCELED
    assert isinstance(outcomes[1], Picture)
    assert outcomes[1].made_with["batch"] == 1


# -- previews ----------------------------------------------------------------------------------------------


def test_previews_come_for_those_who_asked(sdxl: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_worker.engines.diffusers.making.PREVIEW_EVERY_S", 0)
    sdxl.picture("the first teaches how latents look")
    watch = Watching()
    asked, silent = sdxl.request("shown", preview=True), sdxl.request("not shown")

    sdxl.pictures(asked, silent, watch=watch)

    assert len(watch.previews[asked.id]) == STEPS
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in watch.previews[asked.id])
    assert len(watch.previews[asked.id][-1]) < 20_000
    assert silent.id not in watch.previews


def test_previews_change_no_image(sdxl: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_worker.engines.diffusers.making.PREVIEW_EVERY_S", 0)
    plain = sdxl.picture()

    assert same(plain, sdxl.picture(preview=True))


# -- models ------------------------------------------------------------------------------------------------


def test_models_give_way_to_each_other_and_come_back_the_same(tiny_models: TinyModels) -> None:
    larger = max(inspect(tiny_models[family], family).bytes_as("float32") for family in ("sdxl", "flux"))
    rig = Rig(*(entry(family, family, tiny_models[family]) for family in ("sdxl", "flux")), budget=larger)
    before = rig.picture(model="sdxl")
    assert rig.engine.state().loaded == ("sdxl",)

    rig.picture(model="flux")
    assert rig.engine.state().loaded == ("flux",)
    after = rig.picture(model="sdxl")

    assert rig.engine.state().loaded == ("sdxl",)
    assert same(before, after)
    rig.close()


def refused(rig: Rig) -> FailureCode:
    while not rig.engine.prepare("tiny"):
        pass
    failure = rig.failure()
    rig.close()
    return failure.code


def test_a_model_that_is_not_there_is_not_available(tmp_path: Path) -> None:
    assert refused(Rig(entry("tiny", "sdxl", tmp_path / "gone"))) is FailureCode.MODEL_NOT_AVAILABLE


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, dirs_exist_ok=True))


def test_pickles_are_not_loaded(tiny_models: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny_models["sdxl"], tmp_path / "m")
    for weights in (folder / "unet").glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))

    assert refused(Rig(entry("tiny", "sdxl", folder))) is FailureCode.MODEL_NOT_USABLE


def test_a_models_own_code_is_not_run(tiny_models: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny_models["sdxl"], tmp_path / "m")
    ran = tmp_path / "ran"
    (folder / "pipeline.py").write_text(f"open({str(ran)!r}, 'w')\n")

    assert refused(Rig(entry("tiny", "sdxl", folder))) is FailureCode.MODEL_NOT_USABLE
    assert not ran.exists()


def test_a_model_of_another_family_is_not_loaded(tiny_models: TinyModels) -> None:
    assert refused(Rig(entry("tiny", "flux", tiny_models["sdxl"]))) is FailureCode.MODEL_NOT_USABLE


def test_one_bad_model_disturbs_no_other(tiny_models: TinyModels, tmp_path: Path) -> None:
    rig = Rig(
        entry("good", "sd15", tiny_models["sd15"]),
        entry("tiny", "sdxl", tmp_path / "gone"),
    )

    assert rig.failure(model="tiny").code is FailureCode.MODEL_NOT_AVAILABLE
    assert rig.picture(model="good")
    rig.close()


def test_arithmetic_that_overflows_is_a_failure_and_no_black_image(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_models["sd15"], tmp_path / "m")
    (weights,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["conv_out.bias"] = torch.full_like(tensors["conv_out.bias"], float("inf"))
    save_file(tensors, weights, metadata={"format": "pt"})
    rig = Rig(entry("tiny", "sd15", folder))

    failure = rig.failure()

    assert (failure.code, failure.retryable) == (FailureCode.ENGINE_FAILED, True)
    rig.close()


def test_another_revision_than_asked_for_is_refused(sdxl: Rig) -> None:
    (card,) = sdxl.engine.models()

    assert sdxl.picture(revision=card.revision)
    assert sdxl.failure(revision="0" * 40).code is FailureCode.MODEL_NOT_AVAILABLE


def test_a_broken_device_is_not_used_again(sdxl: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sdxl.picture()
    resident = sdxl.engine._residency.take("tiny")

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(resident.adapter, "denoise", fail)

    with pytest.raises(EngineLost):
        sdxl.generate(sdxl.request())


# -- how many at once --------------------------------------------------------------------------------------


def test_larger_images_go_in_smaller_batches(tiny_models: TinyModels) -> None:
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"], limits=Limits(min_size=32, max_size=256)))
    engine = rig.engine
    engine._at_once["tiny"] = 8

    def at_once(**changes: Any) -> int:
        return engine.max_batch(engine.batch_key(rig.request(**changes)))

    assert at_once() == 8
    assert at_once(width=128) == 4
    assert at_once(width=256, height=256) == 1
    assert at_once(reproducible=True) == 1
    rig.close()


def test_what_differs_in_the_call_is_not_mixed(sdxl: Rig) -> None:
    def key(**changes: Any) -> object:
        return sdxl.engine.batch_key(sdxl.request(**changes))

    plain = key()
    assert key(prompt="other", seed=5, preview=True) == plain
    assert key(steps=STEPS, guidance=5.0) == plain  # the defaults, said aloud
    different: list[dict[str, Any]] = [
        {"width": 128}, {"steps": 5}, {"guidance": 1.0}, {"scheduler": "ddim"}, {"negative_prompt": "x"},
        {"reproducible": True}, {"task": "image-to-image"},
    ]  # fmt: skip
    assert len({plain, *(key(**changes) for changes in different)}) == len(different) + 1


def test_a_failure_is_a_failure(sdxl: Rig) -> None:
    assert not isinstance(CANCELED, Picture)
    assert isinstance(CANCELED, Failure)
    assert sdxl.engine.state().doing is None

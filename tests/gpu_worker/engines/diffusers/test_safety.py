"""The safety checker: what it finds is treated as the catalog says, and nothing gets past a broken one."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from contract.messages import FailureCode
from gpu_worker.engines.base import Failure
from gpu_worker.engines.diffusers.catalog import SafetyMode
from gpu_worker.engines.diffusers.safety import (
    REFUSED,
    UNCHECKED,
    CheckerNotUsable,
    SafetyChecker,
    SafetyGuard,
    apply,
    blurred,
    may_preview,
)
from tests.gpu_worker.engines.diffusers.tiny_classifier import blue, build_classifier, red

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(folder, tmp_path / "classifier"))


def load(folder: Path, *unsafe: str, threshold: float = 0.5) -> SafetyChecker:
    return SafetyChecker.load(folder, unsafe or ("nsfw",), threshold, CPU, torch.float32)


@pytest.fixture(scope="session")
def checker(folder: Path) -> SafetyChecker:
    return load(folder)


# -- what it finds ----------------------------------------------------------------------------------


def test_tells_the_unsafe_from_the_others(checker: SafetyChecker) -> None:
    bad, good, large_bad = checker.check([red(), blue(), red(300, 200)])

    assert (bad.unsafe, bad.label) == (True, "nsfw")
    assert (good.unsafe, good.label) == (False, "normal")
    assert large_bad.unsafe
    assert bad.score > 0.9
    assert good.score < 0.1


def test_neighbours_change_nothing(checker: SafetyChecker) -> None:
    alone = checker.check([red()])
    among_others = checker.check([blue(), red(), blue()])

    assert [among_others[1]] == alone


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_takes_images_of_any_mode(checker: SafetyChecker, mode: str) -> None:
    [verdict] = checker.check([blue().convert(mode)])
    assert not verdict.unsafe


def test_labels_count_together_and_in_any_case(folder: Path) -> None:
    one = load(folder, "nsfw").check([red()])[0].score
    both = load(folder, "NSFW", "violence").check([red()])[0].score

    assert one < both <= 1


def test_threshold_decides(folder: Path) -> None:
    score = load(folder).check([red()])[0].score

    assert load(folder, threshold=score).check([red()])[0].unsafe
    assert not load(folder, threshold=(score + 1) / 2).check([red()])[0].unsafe


def test_labels_that_do_not_exclude_each_other(own_folder: Path) -> None:
    """Then each has its own probability, and the highest counts."""
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(
        json.dumps(config | {"problem_type": "multi_label_classification"})
    )

    checker = load(own_folder, "nsfw", "violence")

    assert checker.check([red()])[0].label == "nsfw"
    assert checker.check([red()])[0].score > checker.check([blue()])[0].score


# -- what is done about it --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["flag", "blur", "refuse"])
def test_good_images_pass_unchanged(checker: SafetyChecker, mode: SafetyMode) -> None:
    image = blue()

    assert SafetyGuard(checker, mode).judge(image) == (image, "passed")


def test_flags(checker: SafetyChecker) -> None:
    image = red()

    assert SafetyGuard(checker, "flag").judge(image) == (image, "flagged")


def test_refuses(checker: SafetyChecker) -> None:
    failure = SafetyGuard(checker, "refuse").judge(red())

    assert failure == REFUSED
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.CONTENT_REFUSED
    assert not failure.retryable  # the same seed gives the same image


def test_blurs(checker: SafetyChecker) -> None:
    image = red(96, 64)
    ImageDraw.Draw(image).text((5, 5), "SECRET", fill="white", font_size=20)

    judged = SafetyGuard(checker, "blur").judge(image)

    assert not isinstance(judged, Failure)
    shown, word = judged
    assert word == "blurred"
    assert shown.size == image.size
    assert shown.mode == "RGB"
    assert shown.tobytes() != image.tobytes()


def test_off_looks_at_nothing() -> None:
    image = red()
    assert apply("off", image, None) == (image, "off")


def test_unfinished_images_are_shown_only_where_the_finished_one_is() -> None:
    assert [mode for mode in ("off", "flag", "blur", "refuse") if may_preview(mode)] == ["off", "flag"]


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (64, 64), (1024, 1024), (2048, 512), (100, 1999)])
def test_blurred_has_no_edges(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 200).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, size[0] // 2, size[1] // 2], fill="white")
    draw.text((0, 0), "NO", fill="black", font_size=max(4, size[1] // 2))

    soft = np.asarray(blurred(image), dtype=np.float32)

    assert soft.shape == (size[1], size[0], 3)
    steepest = max(float(np.abs(np.diff(soft, axis=axis)).max(initial=0)) for axis in (0, 1))
    assert steepest <= 1 + 255 * 8 / max(size)


@pytest.mark.parametrize("size", [(48, 48), (1200, 1200), (1200, 400)])
def test_blurred_has_nothing_of_what_is_smaller_than_a_sixth(size: tuple[int, int]) -> None:
    """Two images with the same few large fields become the same one, whatever was drawn within the fields."""
    fields = Image.effect_noise((6, max(1, 6 * size[1] // size[0])), 40).convert("RGB")
    plain = np.asarray(fields.resize(size, Image.Resampling.NEAREST), dtype=np.int16)
    rows, columns = np.indices(plain.shape[:2])
    drawn = np.where((rows // 2 + columns // 2) % 2, 60, -60)[:, :, None]  # levels; as many up as down

    one, other = (
        np.asarray(blurred(Image.fromarray(pixels.astype(np.uint8))), dtype=np.int16)
        for pixels in (plain.clip(60, 195), plain.clip(60, 195) + drawn)
    )

    assert np.abs(one - other).max() <= 2
    assert one.std() > 1


# -- when it is broken ------------------------------------------------------------------------------


def broken(own_folder: Path) -> SafetyChecker:
    """It loads, and then gives no numbers."""
    weights = load_file(own_folder / WEIGHTS)
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, own_folder / WEIGHTS, metadata={"format": "pt"})
    return load(own_folder)


@pytest.mark.parametrize(("mode", "expected"), [("refuse", UNCHECKED), ("blur", UNCHECKED), ("flag", None)])
def test_nothing_gets_past_a_broken_one(
    own_folder: Path, mode: SafetyMode, expected: Failure | None, caplog: pytest.LogCaptureFixture
) -> None:
    image = blue()

    with caplog.at_level(logging.WARNING):
        judged = SafetyGuard(broken(own_folder), mode).judge(image)

    assert judged == (expected or (image, "unchecked"))
    assert UNCHECKED.retryable
    assert "safety checker failed" in caplog.text


def test_a_moment_without_memory_is_survived(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checker = load(folder)
    really = checker.check
    turns = iter([True, False])

    def short_of_memory(images: list[Image.Image]) -> object:
        if next(turns):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return really(images)

    monkeypatch.setattr(checker, "check", short_of_memory)

    assert SafetyGuard(checker, "refuse").judge(red()) == REFUSED
    assert not caplog.records


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def with_a_pickle_instead(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    without_weights(folder)


def with_half_a_file(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-50])


def without_its_head(folder: Path) -> None:
    """It would judge by random weights."""
    weights = load_file(folder / WEIGHTS)
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith("classifier")}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


def without_a_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def with_code_of_its_own(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: ...\n")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto}))


def without_anything(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        without_weights,
        with_a_pickle_instead,
        with_half_a_file,
        without_its_head,
        without_a_processor,
        with_code_of_its_own,
        without_anything,
    ],
)
def test_refuses_what_is_no_classifier(own_folder: Path, spoil: "object") -> None:
    assert callable(spoil)
    spoil(own_folder)

    with pytest.raises(CheckerNotUsable):
        load(own_folder)
    assert not (own_folder / "ran").exists()


def test_refuses_labels_that_it_does_not_have(folder: Path) -> None:
    with pytest.raises(CheckerNotUsable, match=r"porn.*normal, nsfw"):
        load(folder, "nsfw", "porn")

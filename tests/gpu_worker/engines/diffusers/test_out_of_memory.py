"""Memory that runs out, at any moment: every image is made all the same, and says what that took."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from contract.messages import FailureCode
from gpu_worker.engines.base import Failure, Picture
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.rig import Rig, entry, same, seeds


@pytest.fixture
def rig(tiny_models: TinyModels) -> Iterator[Rig]:
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), entry("other", "sd15", tiny_models["sd15"]))
    yield rig
    rig.close()


Patch = Callable[[int], None]


def out_of_memory_above(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, most: int, method: str = "denoise"
) -> list[int]:
    """The model runs out of memory with more than `most` images at once; the batches that were tried."""
    rig.picture()  # loads it
    adapter = rig.engine._residency.take("tiny").adapter
    real, tried = getattr(adapter, method), list[int]()

    def limited(*arguments: Any) -> Any:
        rows = len(arguments[1]) if method == "denoise" else len(arguments[0])
        tried.append(rows)
        if rows > most:
            hog = torch.zeros(1000)  # lives as long as the exception does
            raise torch.OutOfMemoryError(f"CUDA out of memory, {hog.sum()}")
        return real(*arguments)

    monkeypatch.setattr(adapter, method, limited)
    return tried


@pytest.mark.parametrize(
    ("most", "tried"), [(3, [4, 4, 2, 2]), (2, [4, 4, 2, 2]), (1, [4, 4, 2, 1, 1, 1, 1])]
)
def test_every_image_is_made_in_smaller_batches(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, most: int, tried: list[int]
) -> None:
    rig.picture(model="other")
    batches = out_of_memory_above(rig, monkeypatch, most)
    requests = seeds(rig, 4)

    pictures = rig.pictures(*requests)

    assert batches == tried
    assert all("batch 2" in str(picture.made_with["ladder"]) for picture in pictures)
    assert "others" in str(pictures[0].made_with["ladder"])  # the other model went first
    assert rig.engine.state().loaded == ("tiny",)


def test_what_was_learned_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(rig, monkeypatch, 2)
    key = rig.engine.batch_key(rig.request())
    assert rig.engine.max_batch(key) == 4

    rig.pictures(*seeds(rig, 4))

    assert rig.engine.max_batch(key) == 2


def test_decoding_that_runs_out_is_done_in_tiles_without_denoising_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory_above(rig, monkeypatch, 9)
    resident = rig.engine._residency.take("tiny")
    real, vae = resident.adapter.decode, resident.adapter.pipe.vae
    calls: list[bool] = []

    def short_of_memory(*arguments: Any) -> Any:
        calls.append(vae.use_tiling)
        if not vae.use_tiling:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(resident.adapter, "decode", short_of_memory)

    (picture,) = rig.pictures(rig.request())

    assert calls == [False, True]
    assert picture.made_with["ladder"] == "tiling"
    assert not vae.use_tiling


def test_where_nothing_helps_the_images_fail_and_the_next_ones_do_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rig.picture()
    with monkeypatch.context() as patch:
        out_of_memory_above(rig, patch, 0)
        outcomes = rig.generate(*seeds(rig, 3))

    assert all(isinstance(one, Failure) and one.code is FailureCode.OUT_OF_MEMORY for one in outcomes)
    assert same(rig.picture(), expected)


def test_bit_for_bit_takes_no_rung_that_changes_bits(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"], strict_batch=2))
    batches = out_of_memory_above(rig, monkeypatch, 1)

    outcomes = rig.generate(*seeds(rig, 2, reproducible=True))

    assert {one.code for one in outcomes if isinstance(one, Failure)} == {FailureCode.OUT_OF_MEMORY}
    assert set(batches) == {2}
    rig.close()


def test_a_model_that_does_not_fit_at_once_is_tried_without_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.picture(model="other")
    real, turns = rig.loader.load, list[str]()

    def short_of_memory(alias: str, folder: Any) -> Any:
        turns.append(alias)
        if len(turns) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(alias, folder)

    monkeypatch.setattr(rig.loader, "load", short_of_memory)

    assert rig.picture(model="tiny")
    assert rig.engine.state().loaded == ("tiny",)


def test_what_was_made_before_memory_ran_out_for_good_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = out_of_memory_above(rig, monkeypatch, 2)
    resident = rig.engine._residency.take("tiny")
    limited = resident.adapter.denoise

    def worse_and_worse(*arguments: Any) -> Any:
        if len(tried) >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return limited(*arguments)

    monkeypatch.setattr(resident.adapter, "denoise", worse_and_worse)

    outcomes = rig.generate(*seeds(rig, 4))

    assert [isinstance(one, Picture) for one in outcomes] == [True, True, False, False]
    assert {one.code for one in outcomes if isinstance(one, Failure)} == {FailureCode.OUT_OF_MEMORY}


def test_memory_that_runs_out_beside_the_images_is_told_as_such(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.picture()
    resident = rig.engine._residency.take("tiny")

    def short_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(resident.loras, "use", short_of_memory)

    failure = rig.failure()

    assert (failure.code, failure.retryable) == (FailureCode.OUT_OF_MEMORY, True)

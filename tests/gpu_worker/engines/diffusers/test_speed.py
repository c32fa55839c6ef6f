"""Speed: what can be done here is done and told, what can't is left out, and the pictures stay the same.

What only a GPU does (bf16, cuDNN's attention, channels-last, fp8, Inductor's kernels) is not seen here: on a
CPU Inductor takes minutes even for tiny models, so that graphs are captured and run as they are.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch._dynamo.testing import CompileCounter

from gpu_worker.engines.diffusers import attention, compiling, families, speed
from gpu_worker.engines.diffusers.families.base import FamilyAdapter, Row, Run
from tests.gpu_worker.engines.diffusers.conftest import TinyModels

CPU = torch.device("cpu")
RUN = Run("text-to-image", 64, 64, 2, 5.0)
COMPILED = ["sd15", "sd3", "flux"]  # a UNet, one that doesn't say which its blocks are, one that does


def open_model(models: TinyModels, family: str) -> FamilyAdapter:
    return families.load(models[family], family, dtype=torch.float32)


def pixels(adapter: FamilyAdapter, rows: int = 1, run: Run = RUN) -> torch.Tensor:
    with torch.inference_mode():
        words = adapter.encode("a fox", None, cfg=adapter.uses_cfg(run.guidance))
        batch = [Row(words, torch.Generator().manual_seed(row)) for row in range(rows)]
        return adapter.decode(adapter.denoise(run, batch, lambda *told: None), run)


# -- precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "mps", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "mps", torch.float16),
    ],
)
def test_precision(name: str, device: str, dtype: torch.dtype) -> None:
    found = speed.dtype_of(name, torch.device(device))

    assert found is dtype
    assert speed.DTYPES[speed.dtype_name(found)] is dtype


def test_cublas_is_not_told_what_torch_would_read_with_each_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    speed.prepare_process(CPU)

    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_torch_is_not_heard_when_it_asks_for_that() -> None:
    with warnings.catch_warnings():
        speed.prepare_process(CPU)

        warnings.warn(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic "
            "because it uses CuBLAS and you have CUDA >= 10.2.",
            stacklevel=1,
        )
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", stacklevel=1)


def test_strict_work_asks_torch_for_the_same_each_time() -> None:
    with speed.bit_for_bit():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


# -- attention --------------------------------------------------------------------------------------


def test_never_one_that_downloads_code() -> None:
    assert not [name for name in attention.names() if "hub" in name]
    with pytest.raises(attention.UnknownAttention):
        attention.candidates("_flash_3_hub", CPU)
    with pytest.raises(attention.UnknownAttention, match="native"):
        attention.candidates("fastest", CPU)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, ("native",)),
        ("auto", ("native",)),
        ("native", ("native",)),
        ("_native_math", ("_native_math", "native")),
    ],
)
def test_candidates_on_a_cpu(wanted: str | None, expected: tuple[str, ...]) -> None:
    assert attention.candidates(wanted, CPU) == expected


@pytest.mark.parametrize(
    ("wanted", "settled"),
    [("_native_math", "_native_math"), ("_native_cudnn", "native"), ("flash", "native")],
)
def test_what_does_not_work_here_gives_way(
    tiny_models: TinyModels, caplog: pytest.LogCaptureFixture, wanted: str, settled: str
) -> None:
    adapter = open_model(tiny_models, "flux")
    before = pixels(adapter)

    with caplog.at_level(logging.WARNING):
        found = attention.settle(
            adapter.denoiser(), attention.candidates(wanted, CPU), lambda: pixels(adapter)
        )

    assert found == settled
    assert (found == wanted) == ("doesn't work here" not in caplog.text)
    assert (pixels(adapter).int() - before.int()).abs().max() <= 1
    assert _AttentionBackendRegistry._active_backend is AttentionBackendName.NATIVE  # others keep theirs


def test_unets_have_no_choice(tiny_models: TinyModels) -> None:
    adapter = open_model(tiny_models, "sd15")

    def never() -> None:
        raise AssertionError

    assert not attention.takes_backend(adapter.denoiser())
    assert attention.settle(adapter.denoiser(), ("_native_cudnn", "native"), never) == "native"


def test_want_of_memory_is_no_reason_against_a_backend(tiny_models: TinyModels) -> None:
    def short_of_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        attention.settle(
            open_model(tiny_models, "flux").denoiser(), ("_native_math", "native"), short_of_memory
        )


# -- compiling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", COMPILED)
def test_compiled_by_block(tiny_models: TinyModels, family: str) -> None:
    # Given a model whose blocks are compiled, warm with batches of 1 and 2
    adapter = open_model(tiny_models, family)
    before = [pixels(adapter, rows) for rows in (1, 3)]
    counter = CompileCounter()
    assert speed.compile_and_warm_up(adapter, RUN, counter)
    compiled = counter.frame_count

    # When other batches are made
    after = [pixels(adapter, rows) for rows in (1, 3)]
    for rows in (2, 4):
        pixels(adapter, rows)

    # Then the graphs serve them, too, and the pictures are the same
    assert compiled >= 2
    assert counter.frame_count == compiled
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_no_block_is_left_as_it_is_because_there_are_many_graphs() -> None:
    # Given a UNet with three widths, as Stable Diffusion's: each has its own graphs
    torch.compiler.reset()  # what other tests have compiled lets torch guess better
    down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 96), down_block_types=(down,) * 3, up_block_types=(up,) * 3,
        layers_per_block=1, cross_attention_dim=8, attention_head_dim=2,
    ).eval()  # fmt: skip
    counter = CompileCounter()
    compiling.compile_blocks(unet, counter)

    # When one image is made, and several, and one without guidance, which is half as much
    with torch.inference_mode(), torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for rows in (2, 4, 1):
            unet(torch.randn(rows, 4, 16, 16), 1.0, torch.randn(rows, 7, 8))

    # Then torch compiled more than it does if nobody tells it
    assert counter.frame_count > 8


def test_strict_work_uses_nothing_compiled(tiny_models: TinyModels) -> None:
    adapter = open_model(tiny_models, "flux")
    counter = CompileCounter()
    compiling.compile_blocks(adapter.denoiser(), counter)

    with speed.bit_for_bit():
        pixels(adapter)

    assert counter.frame_count == 0


def test_what_can_not_be_compiled_runs_as_it_is(
    tiny_models: TinyModels, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*args: object) -> Callable[..., object]:
        raise RuntimeError("no C compiler found")

    adapter = open_model(tiny_models, "flux")
    before = pixels(adapter)

    with caplog.at_level(logging.WARNING, logger="gpu_worker"):
        assert not speed.compile_and_warm_up(adapter, RUN, no_compiler)

    assert "can't be compiled" in caplog.text
    assert torch.equal(pixels(adapter), before)


def test_unknown_models_are_not_compiled() -> None:
    assert not compiling.compile_blocks(torch.nn.Linear(2, 2))


# -- all together -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_tells_what_was_done(tiny_models: TinyModels, family: str) -> None:
    adapter = open_model(tiny_models, family)
    before = pixels(adapter)

    traits = speed.quicken(adapter, RUN, CPU, compiled=True)

    assert traits == {"attention": "native", "channels_last": False, "compiled": False, "fp8": False}
    assert torch.equal(pixels(adapter), before)


def test_fp8_needs_a_device_that_has_it(tiny_models: TinyModels) -> None:
    with pytest.raises(speed.NotPossibleHere, match="fp8"):
        speed.quicken(open_model(tiny_models, "flux"), RUN, CPU, fp8=True)


# -- trying it out ----------------------------------------------------------------------------------


def test_warm_up_makes_each_batch(tiny_models: TinyModels) -> None:
    spent = speed.warm_up(open_model(tiny_models, "sd15"), replace(RUN, steps=1), (1, 3))

    assert list(spent) == [1, 3]
    assert all(seconds > 0 for seconds in spent.values())


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_seconds_for_a_batch_come_from_a_few_steps(tiny_models: TinyModels, steps: int) -> None:
    adapter = open_model(tiny_models, "sdxl")

    seconds = speed.seconds_for(adapter, replace(RUN, steps=steps), 2, CPU)

    assert 0 < seconds < math.inf


def test_seconds_for_what_does_not_fit_are_infinite(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = open_model(tiny_models, "sd15")

    def too_much(*args: object) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(adapter, "denoise", too_much)

    assert speed.seconds_for(adapter, RUN, 2, CPU) == math.inf

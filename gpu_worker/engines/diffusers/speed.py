"""What makes a model fast on its device. Each part is optional, harmless elsewhere, and written down."""

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch
from diffusers import DiffusionPipeline

from gpu_worker.engines.diffusers import attention, compiling, memory
from gpu_worker.engines.diffusers.families.base import FamilyAdapter, Row, Run

logger = logging.getLogger(__name__)

DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
WARM_UP_STEPS: Final = 2
_FP8_SINCE: Final = (8, 9)  # compute capability: Ada, Hopper
_FP8_SMALLEST: Final = 512  # smaller layers lose more in quality than they win in time

_ASKS_FOR_CUBLAS_CONFIG: Final = "Deterministic behavior was enabled with either"  # torch's warning begins so

Traits = Mapping[str, str | bool]


class NotPossibleHere(Exception):
    """The catalog asks for something that this device, or what is installed, can't do. For operators."""


# -- precision ----------------------------------------------------------------------------------------


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The catalog's word as torch has it. `auto`: bfloat16 where the device has it, else what is safe."""
    return _best_dtype(device) if name == "auto" else DTYPES[name]


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32  # the CPU is slower with less; on MPS half precision gives black images
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def dtype_name(dtype: torch.dtype) -> str:
    """The catalog's word for it."""
    return str(dtype).removeprefix("torch.")


# -- the process --------------------------------------------------------------------------------------


def prepare_process(device: torch.device) -> None:
    """Once, before the device is first used.

    CUBLAS_WORKSPACE_CONFIG is not set. torch hands cuBLAS a workspace for each stream, and with the one that
    we use a sum comes out the same each time. Where it is set, torch parses it for each product of matrices:
    the steps of SDXL took twice as long on an H200 (torch 2.11).
    """
    warnings.filterwarnings("ignore", message=_ASKS_FOR_CUBLAS_CONFIG)
    torch.backends.cudnn.benchmark = False  # which kernel wins the race differs from run to run
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what is left in fp32


@contextmanager
def bit_for_bit() -> Iterator[None]:
    """Within, the same is computed in the same way each time, where torch has such a way.

    Nothing compiled is used: which graph serves a batch depends on what was made before it.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32):
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            torch.use_deterministic_algorithms(mode=before[0], warn_only=before[1])


# -- a model ------------------------------------------------------------------------------------------


def quicken(
    adapter: FamilyAdapter,
    run: Run,
    device: torch.device,
    *,
    attention_backend: str | None = None,
    compiled: bool = False,
    fp8: bool = False,
) -> Traits:
    """Makes a model fast that is on its device, tries it out with `run`, and tells what was done.

    What doesn't work is left out, with a word in the log. Raises attention.UnknownAttention, NotPossibleHere
    (fp8), and what is raised when memory is short.
    """
    denoiser = adapter.denoiser()
    if fp8:
        quantize_fp8(denoiser, device)
    return {
        "channels_last": channels_last(adapter.pipe, device),
        "attention": attention.settle(
            denoiser, attention.candidates(attention_backend, device), lambda: warm_up(adapter, run)
        ),
        "compiled": compiled and device.type == "cuda" and compile_and_warm_up(adapter, run),
        "fp8": fp8,
    }


def channels_last(pipe: DiffusionPipeline, device: torch.device) -> bool:
    """Lays the VAE out in memory as tensor cores want it; False: it has none, or the device gains nothing."""
    vae = getattr(pipe, "vae", None)
    if device.type != "cuda" or vae is None or any(weight.ndim == 5 for weight in vae.parameters()):
        return False  # convolutions over time have another layout
    vae.to(memory_format=torch.channels_last)
    return True


def compile_and_warm_up(adapter: FamilyAdapter, run: Run, backend: compiling.Backend = "inductor") -> bool:
    """Compiles the denoiser by block; False: it can't be, and runs as before.

    On a CPU it works too, but takes minutes: `quicken` does it on GPUs alone.
    """
    denoiser = adapter.denoiser()
    if not compiling.compile_blocks(denoiser, backend):
        return False
    try:
        spent = warm_up(adapter, run, (1, 2))
    except Exception as exc:
        compiling.uncompile(denoiser)
        if memory.is_out_of_memory(exc):
            raise
        logger.warning("The model can't be compiled here, and runs as it is: %s", exc)  # no compiler, mostly
        return False
    logger.info("Compiled in %.1f s", sum(spent.values()))
    return True


def quantize_fp8(denoiser: torch.nn.Module, device: torch.device) -> None:
    """Large layers in 8 bits: half the memory, and a little less true. Raises NotPossibleHere."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_SINCE:
        raise NotPossibleHere("fp8: this device doesn't compute in it (NVIDIA since Ada and Hopper do)")
    try:
        from torchao.quantization import (  # type: ignore[import-not-found,unused-ignore]  # not in the extra
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError as exc:
        raise NotPossibleHere("fp8: it needs torchao (pip install torchao)") from exc
    quantize_(denoiser, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), filter_fn=_large)


def _large(module: torch.nn.Module, name: str) -> bool:  # noqa: ARG001  # torchao's
    return (
        isinstance(module, torch.nn.Linear) and min(module.in_features, module.out_features) >= _FP8_SMALLEST
    )


# -- trying it out ------------------------------------------------------------------------------------


def warm_up(adapter: FamilyAdapter, run: Run, batches: Sequence[int] = (1,)) -> dict[int, float]:
    """Makes nothing in particular, in batches of these sizes: seconds by size."""
    return {batch: _seconds(adapter, run, batch) for batch in batches}


def seconds_for(adapter: FamilyAdapter, run: Run, batch: int, device: torch.device) -> float:
    """How long one batch of so many takes, from a few of its steps; infinity: memory doesn't hold it."""
    failure = None
    try:
        return _measured(adapter, run, batch)
    except Exception as exc:
        if not memory.is_out_of_memory(exc):
            raise
        failure = exc
    memory.clear(failure, device)
    return math.inf


def _measured(adapter: FamilyAdapter, run: Run, batch: int) -> float:
    _make(adapter, run, batch)  # the first time is slower
    few, more = min(WARM_UP_STEPS, run.steps), min(2 * WARM_UP_STEPS, run.steps)
    spent = _seconds(adapter, run, batch, steps=few)
    if few == more:
        return spent
    step = max(_seconds(adapter, run, batch, steps=more) - spent, 0.0) / (more - few)
    return spent + step * (run.steps - few)


def _make(adapter: FamilyAdapter, run: Run, batch: int, steps: int = WARM_UP_STEPS) -> None:
    few = replace(run, task="text-to-image", strength=None, steps=max(1, min(steps, run.steps)))
    with torch.inference_mode():
        words = adapter.encode("a warm morning", None, cfg=adapter.uses_cfg(run.guidance))
        rows = [Row(words, torch.Generator().manual_seed(row)) for row in range(batch)]
        latents = adapter.denoise(few, rows, _go_on)
        adapter.decode(latents, few).cpu()  # waits for the device


def _go_on(step: int, steps: int, latents: torch.Tensor) -> None:
    """Asks for nothing after a step."""


def _seconds(adapter: FamilyAdapter, run: Run, batch: int, steps: int = WARM_UP_STEPS) -> float:
    begun = time.perf_counter()
    _make(adapter, run, batch, steps)
    return time.perf_counter() - begun

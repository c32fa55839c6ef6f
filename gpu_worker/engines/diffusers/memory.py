"""Memory of the device: how much there is, how one knows that it ran out, and how to get it back."""

import ctypes
import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from diffusers import DiffusionPipeline

from gpu_worker.engines.diffusers import machine_memory

# What torch raises as a plain RuntimeError when memory is short, in small letters.
_OUT_OF_MEMORY_TEXTS: Final = (
    "out of memory",  # CUDA, HIP, MPS ("MPS backend out of memory"), XPU
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory",  # DefaultCPUAllocator, on Windows
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_insufficient_resources",
    "hipblas_status_alloc_failed",
    "rocblas_status_memory_error",
    "miopenstatusallocfailed",
    "unable to find an engine to execute this computation",  # cuDNN, when no plan fits into what is free
    "invalid buffer size",  # MPS, for one buffer that is too large
)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether it was raised, itself or what it was raised from, because memory is short."""
    return any(_is_out_of_memory(link) for link in _chain(exc))


def _is_out_of_memory(exc: BaseException) -> bool:
    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and any(known in text for known in _OUT_OF_MEMORY_TEXTS)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and all that hang on it, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def clear(exc: BaseException | None, device: torch.device) -> None:
    """Gives back what only the exception held, and what torch keeps for later.

    To be called after the `except` block has been left: until then the frames that are still running, and
    Python's own note of the exception being handled, hold tensors.
    """
    if exc is not None:
        for link in list(_chain(exc)):
            traceback.clear_frames(link.__traceback__)
            link.__traceback__ = None
    empty(device)


def empty(device: torch.device) -> None:
    """Collects what hangs in circles, and hands what torch keeps for later back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        _trim_heap()


def _trim_heap() -> None:
    """glibc keeps what was freed; the machine has other processes that could use it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # absent from musl
        if trim is not None:
            trim(0)


# -- how much there is -------------------------------------------------------------------------------------


def total_bytes(device: torch.device) -> int | None:
    """Memory of the device; None: it doesn't tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return machine_memory.total()


def free_bytes(device: torch.device) -> int | None:
    """What may be taken now, with what torch keeps for itself; None: the device doesn't tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + kept)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return machine_memory.free()


def used_bytes(device: torch.device) -> int | None:
    """What this process has taken; None: unknown. On the CPU: the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    return machine_memory.used()


# -- slower, but smaller -----------------------------------------------------------------------------------


def can_tile(pipe: DiffusionPipeline) -> bool:
    """Whether the VAE can work tile by tile: less memory, and slightly other pixels."""
    return hasattr(getattr(pipe, "vae", None), "use_tiling")


@contextmanager
def tiled_vae(pipe: DiffusionPipeline) -> Iterator[bool]:
    """Has the VAE work on one tile of one image at a time; afterwards as before. Gives whether it can."""
    with _switched(pipe, "tiling") as tiles, _switched(pipe, "slicing"):
        yield tiles


@contextmanager
def sliced_vae(pipe: DiffusionPipeline) -> Iterator[bool]:
    """Has the VAE work on one image at a time: the same pixels as alone; afterwards as before."""
    with _switched(pipe, "slicing") as slices:
        yield slices


@contextmanager
def _switched(pipe: DiffusionPipeline, what: str) -> Iterator[bool]:
    vae = getattr(pipe, "vae", None)
    before = getattr(vae, f"use_{what}", None)
    if vae is None or before is None:
        yield False
        return
    setattr(vae, f"use_{what}", True)  # as `enable_tiling` does, but for its sizes, which stay the VAE's own
    try:
        yield True
    finally:
        setattr(vae, f"use_{what}", before)


def is_offloaded(pipe: DiffusionPipeline) -> bool:
    """Whether its components are on the device only while they work."""
    return bool(getattr(pipe, "_all_hooks", None))


def offload_on(pipe: DiffusionPipeline, device: torch.device) -> bool:
    """Keeps the components in the machine's memory, but for the one that works now. Slower, and far smaller.

    False, and nothing is changed, where the device's memory is the machine's own (CPU, MPS): there is nothing
    to be gained.
    """
    if device.type in ("cpu", "mps"):
        return False
    if not is_offloaded(pipe):
        pipe.enable_model_cpu_offload(device=device)
    return True


def offload_off(pipe: DiffusionPipeline, device: torch.device) -> None:
    """Brings the whole pipeline to the device for good."""
    if is_offloaded(pipe):
        pipe.remove_all_hooks()
    pipe.to(device)

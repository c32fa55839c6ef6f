"""How attention is computed: by the kernels of a library, tried out before they are relied upon."""

import logging
from collections.abc import Callable, Iterator
from typing import Final

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.library_log import hushed

logger = logging.getLogger(__name__)

NATIVE: Final = "native"  # torch chooses among its own kernels
_CUDNN: Final = "_native_cudnn"
_CUDNN_SINCE: Final = 9  # major number of the compute capability: Hopper
_DOWNLOADS: Final = "hub"  # in the names of those that fetch code when they are first used


class UnknownAttention(Exception):
    """No attention backend of this name, or one that downloads code. The text is for operators."""


def names() -> tuple[str, ...]:
    """Backends that a catalog may name."""
    return tuple(sorted(one.value for one in AttentionBackendName if _DOWNLOADS not in one.value.split("_")))


def candidates(wanted: str | None, device: torch.device) -> tuple[str, ...]:
    """Backends to be tried, best first. None or `auto`: what is known to be good on the device.

    Raises UnknownAttention.
    """
    if wanted in (None, "auto", NATIVE):
        return (_CUDNN, NATIVE) if wanted != NATIVE and _has_good_cudnn(device) else (NATIVE,)
    if wanted not in names():
        raise UnknownAttention(f"attention: {wanted} is none of {', '.join(names())}")
    return (wanted, NATIVE)


def settle(denoiser: torch.nn.Module, wanted: tuple[str, ...], try_out: Callable[[], object]) -> str:
    """Sets the first backend with which `try_out` runs, and tells its name.

    Kernels refuse shapes and masks only when they are called: `try_out` should make something of the usual
    size. What it raises with the last backend, and when memory is short, is raised here.
    """
    if not takes_backend(denoiser):
        return NATIVE
    for name in wanted[:-1]:
        if _works(denoiser, name, try_out):
            return name
    _set(denoiser, wanted[-1])
    return wanted[-1]


def takes_backend(denoiser: torch.nn.Module) -> bool:
    """Whether its kernels can be chosen. UNets and SD3 always have torch's own."""
    return any(True for _ in _processors(denoiser))


def _processors(denoiser: torch.nn.Module) -> Iterator[object]:
    for module in denoiser.modules():
        processor = getattr(module, "processor", None)
        if hasattr(processor, "_attention_backend"):
            yield processor


def _works(denoiser: torch.nn.Module, name: str, try_out: Callable[[], object]) -> bool:
    try:
        _set(denoiser, name)
        try_out()
    except (RuntimeError, ValueError, ImportError, NotImplementedError) as exc:
        if memory.is_out_of_memory(exc):
            raise
        logger.warning("Attention by %s doesn't work here, the next one is tried: %s", name, exc)
        return False
    return True


def _set(denoiser: torch.nn.Module, name: str) -> None:
    # diffusers makes it the default of all other models too: the context takes that back
    with hushed(), attention_backend(NATIVE):
        denoiser.set_attention_backend(name)  # type: ignore[operator]  # diffusers' own models have it


def _has_good_cudnn(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device)[0] >= _CUDNN_SINCE

"""Errors after which a device is of no use to this process."""

import torch

from gpu_worker.engines.base import EngineLost
from gpu_worker.engines.diffusers import memory

_SIGNS = (
    "cuda error",
    "hip error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
)


def raise_if_device_is_lost(exc: Exception) -> None:
    """Raises `EngineLost` where the driver's context is broken: every later call would fail as well."""
    if memory.is_out_of_memory(exc):
        return
    accelerator_error = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    text = str(exc).lower()
    if (accelerator_error and isinstance(exc, accelerator_error)) or (
        isinstance(exc, RuntimeError) and any(sign in text for sign in _SIGNS)
    ):
        raise EngineLost(str(exc)[:500]) from exc

"""The devices that torch can compute on. As a program it prints them, for a launcher without torch."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

import torch

from contract.messages import Device

Kind = Literal["cpu", "cuda", "rocm", "mps"]
CPU_NAME = "CPU"


def this_device(slot: str = "") -> Device:
    """What this process computes on. `slot` is the launcher's word for it (`cuda3`); empty: the best one.

    The launcher shows a process one GPU only, so that it is torch's first one, whatever its number.
    Raises RuntimeError if the slot is on a GPU and torch sees none.
    """
    kind = slot.rstrip("0123456789") or _best_kind()
    index = int(slot.removeprefix(kind) or 0)
    if kind in ("cuda", "rocm"):
        gpu = torch.cuda.get_device_properties(0)
        return Device(kind=_gpu_kind(), name=gpu.name, index=index, memory_bytes=gpu.total_memory)
    if kind == "mps":
        memory = torch.mps.recommended_max_memory()
        return Device(kind="mps", name="Apple GPU", memory_bytes=memory)
    return Device(kind="cpu", name=CPU_NAME, memory_bytes=_main_memory())


def _best_kind() -> Kind:
    if torch.cuda.is_available():
        return _gpu_kind()
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _gpu_kind() -> Literal["cuda", "rocm"]:
    """torch calls AMD's GPUs cuda, too."""
    return "rocm" if torch.version.hip else "cuda"


def _main_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def found() -> dict[str, Any]:
    """What the launcher wants to know."""
    built_for = torch.version.hip or torch.version.cuda
    return {
        "torch": torch.__version__,
        "built_for": f"{_gpu_kind()} {built_for}" if built_for else None,
        "devices": list(_devices()),
    }


def _devices() -> Iterator[dict[str, Any]]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            uuid = str(gpu.uuid) if hasattr(gpu, "uuid") else None
            yield {"kind": _gpu_kind(), "index": index, "name": gpu.name,
                   "memory_bytes": gpu.total_memory, "uuid": uuid}  # fmt: skip
    elif torch.backends.mps.is_available():
        yield this_device("mps").model_dump()
    yield this_device("cpu").model_dump()


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(found())}\n")  # the last line: libraries may have said something before

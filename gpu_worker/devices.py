"""Slots: what the launcher starts one node process for. Here the devices of a machine are found.

torch knows them best, but the launcher lives long and shall be small: a child process asks torch, and ends.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ASK_TORCH = "gpu_worker.engines.diffusers.device"
TORCH_WITHIN_S = 180.0  # a cold disk, or eight GPUs that wake up; a driver that hangs takes for ever
DRIVER_FILES = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's
SLOT = "FANFARE_SLOT"  # in the environment of a node process: the name of its slot

# The variables that choose the GPUs which a process may see, the one that counts first
VISIBLE = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "rocm": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
ORDER = "CUDA_DEVICE_ORDER"
OF_THE_BUS = "PCI_BUS_ID"  # as nvidia-smi counts them, not by speed


class NoDevice(Exception):
    """No process can be started on the devices that are wanted; the text says why."""


@dataclass(frozen=True)
class Slot:
    """A place for one node process."""

    name: str  # cpu, remote, cuda0, ...: part of the node's name and prefix of its log
    environment: Mapping[str, str] = field(default_factory=dict)  # pins the process to its device


@dataclass(frozen=True)
class Found:
    """A device, as torch sees it from a process that may see all."""

    kind: str  # cuda, rocm, mps, cpu
    name: str
    index: int
    memory_bytes: int | None
    uuid: str | None = None

    @property
    def slot_name(self) -> str:
        return f"{self.kind}{self.index}" if self.kind in VISIBLE else self.kind


def on_cpu() -> list[Slot]:
    """One process, on no device in particular."""
    return [Slot("cpu")]


def remote() -> list[Slot]:
    """One process that has the work done elsewhere."""
    return [Slot("remote")]


def on_torch_devices(wanted: Sequence[str] = ()) -> list[Slot]:
    """One process for each GPU that torch can use, or one on the CPU where there is none.

    `wanted` names devices (`cuda0`, `mps`, `cpu`) or all of a kind (`cuda`). Raises `NoDevice`.
    """
    if set(wanted) == {"cpu"}:
        return [Slot("cpu", NO_GPU)]  # a broken driver isn't even asked
    answer = ask_torch()
    devices = [Found(**device) for device in answer["devices"]]
    chosen = _chosen(devices, wanted) if wanted else _best(devices, answer["built_for"])
    for device in chosen:
        logger.info("Device %s: %s, %s", device.slot_name, device.name, _in_gib(device.memory_bytes))
    return [slot for device in chosen for slot in _slots_on(device)]


def my_slot() -> str:
    """The slot that the launcher gave to this process; empty where there was no launcher."""
    return os.environ.get(SLOT, "")


def _best(devices: Sequence[Found], built_for: str | None) -> list[Found]:
    """All GPUs. A driver but no GPU that torch sees is a fault: the CPU would take an hour per image."""
    gpus = [device for device in devices if device.kind != "cpu"]
    if gpus:
        return gpus
    driver = next((file for file in DRIVER_FILES if Path(file).exists()), None)
    if driver and not _hidden_on_purpose():
        raise NoDevice(
            f"There is a GPU driver here ({driver}), but torch (built for {built_for or 'CPUs only'}) "
            "sees no GPU. Mend the driver or install another torch, or set FANFARE_NODE_DEVICES=cpu"
        )
    logger.warning("There is no GPU here that torch can use: images are made by the CPU, which is slow")
    return list(devices)


def _hidden_on_purpose() -> bool:
    return any(os.environ.get(name) in ("", "-1") for names in VISIBLE.values() for name in names)


def _chosen(devices: Sequence[Found], wanted: Sequence[str]) -> list[Found]:
    """The devices that are wanted, each once, in the order in which they are there."""
    known = {name for device in devices for name in (device.slot_name, device.kind)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        there = ", ".join(device.slot_name for device in devices)
        raise NoDevice(f"FANFARE_NODE_DEVICES: no device {', '.join(unknown)}; there are: {there}")
    return [device for device in devices if {device.slot_name, device.kind} & set(wanted)]


def _slots_on(device: Found) -> list[Slot]:
    if device.kind not in VISIBLE:
        return [Slot(device.slot_name, NO_GPU if device.kind == "cpu" else {})]
    names = VISIBLE[device.kind]
    given = next((os.environ[name] for name in names if name in os.environ), "")
    tokens = [token.strip() for token in given.split(",") if token.strip()]
    if device.kind == "cuda" and tokens and all(token.startswith("MIG-") for token in tokens):
        return _slots_on_slices(tokens)
    token = tokens[device.index] if tokens else _token(device)
    return [Slot(device.slot_name, _order() | dict.fromkeys(names, token))]


def _order() -> dict[str, str]:
    """The same for torch when it is asked, and for the processes that use the answer."""
    return {ORDER: os.environ.get(ORDER) or OF_THE_BUS}


def _slots_on_slices(tokens: Sequence[str]) -> list[Slot]:
    """CUDA shows a process one slice of a GPU at the most, however many it may see."""
    return [Slot(f"cuda{number}", {"CUDA_VISIBLE_DEVICES": token}) for number, token in enumerate(tokens)]


def _token(device: Found) -> str:
    """What the driver calls it. Numbers move up when a GPU fails; of a slice torch knows no UUID."""
    if device.kind == "cuda" and device.uuid and "MIG" not in device.name:
        return f"GPU-{device.uuid}"
    return str(device.index)


def _in_gib(size: int | None) -> str:
    return f"{size / 2**30:.0f} GiB" if size else "memory unknown"


# -- asking torch -------------------------------------------------------------------------------------


def ask_torch(within_s: float = TORCH_WITHIN_S) -> dict[str, Any]:
    """What `engines.diffusers.device.found` says, in a process of its own. Raises `NoDevice`."""
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", ASK_TORCH],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | _order(),
    )
    try:
        said, complaint = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        _give_up(process)
        raise NoDevice(
            f"torch does not find its devices within {within_s:.0f} s: the GPU's driver seems to hang"
        ) from None
    if process.returncode != 0:
        raise NoDevice(_why(complaint.decode(errors="replace"), process.returncode))
    answer: dict[str, Any] = json.loads(said.decode().splitlines()[-1])
    return answer


def _give_up(process: "subprocess.Popen[bytes]") -> None:
    """Who hangs within the driver can't even be killed; then we don't wait."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=2)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _why(complaint: str, code: int) -> str:
    lines: Iterable[str] = filter(None, map(str.strip, reversed(complaint.splitlines())))
    last = next(iter(lines), f"exit code {code}")
    if "No module named 'torch'" in last:
        return "The engine needs torch, and it is not installed: pip install 'fanfare[gpu]'"
    return f"torch can't be used: {last}"

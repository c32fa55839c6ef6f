"""Devices are found by torch, in a process of its own: here a torch that sees what the test wants it to."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpu_worker import devices
from gpu_worker.devices import NoDevice, Slot, ask_torch, on_torch_devices

TORCH = """
import json, os
from pathlib import Path
from types import SimpleNamespace as Namespace

given = json.loads(Path(__file__).with_name("given.json").read_text())
print("a library says hello")
visible = os.environ.get("CUDA_VISIBLE_DEVICES")
gpus = given["gpus"]
if visible is not None:
    tokens = [token for token in visible.split(",") if token]
    gpus = gpus[:1] if any(token.startswith("MIG-") for token in tokens) else gpus[:len(tokens)]

__version__ = "2.13.0"
version = Namespace(cuda=given.get("cuda"), hip=given.get("hip"))
properties = [
    Namespace(name=name, total_memory=80 * 2**30, uuid=f"0000-{number}") for number, name in enumerate(gpus)
]
cuda = Namespace(
    is_available=lambda: bool(properties),
    device_count=lambda: len(properties),
    get_device_properties=properties.__getitem__,
)
mps = Namespace(recommended_max_memory=lambda: 10 * 2**30)
backends = Namespace(mps=Namespace(is_available=lambda: given.get("mps", False)))
"""
BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with these GPUs, as the child process sees it."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    monkeypatch.setattr(devices, "DRIVER_FILES", (str(tmp_path / "driver"),))
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)

    def describe(gpus: list[str], **more: Any) -> None:
        (package / "given.json").write_text(json.dumps({"gpus": gpus} | more))

    return describe


def test_a_machine_without_a_gpu_computes_on_its_cpu(machine: Machine) -> None:
    machine([])
    assert on_torch_devices() == [Slot("cpu", HIDDEN)]


@pytest.mark.parametrize("count", [1, 8])
def test_each_gpu_gets_a_process_that_sees_no_other(machine: Machine, count: int) -> None:
    machine(["NVIDIA H200"] * count, cuda="13.0")
    assert on_torch_devices() == [
        Slot(f"cuda{number}", BUS | {"CUDA_VISIBLE_DEVICES": f"GPU-0000-{number}"}) for number in range(count)
    ]


@pytest.mark.parametrize(
    ("visible", "tokens"),
    [("2,0", ["2", "0"]), ("GPU-aaaa, GPU-bbbb", ["GPU-aaaa", "GPU-bbbb"]), ("5", ["5"])],
)
def test_what_the_operator_has_chosen_is_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, visible: str, tokens: list[str]
) -> None:
    machine(["NVIDIA A100"] * 4, cuda="13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert [dict(slot.environment) for slot in on_torch_devices()] == [
        {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": token} for token in tokens
    ]


def test_each_slice_of_a_gpu_gets_a_process_though_cuda_shows_one_at_a_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(["NVIDIA H200 MIG 1g.18gb"], cuda="13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert on_torch_devices() == [
        Slot("cuda0", {"CUDA_VISIBLE_DEVICES": "MIG-a"}),
        Slot("cuda1", {"CUDA_VISIBLE_DEVICES": "MIG-b"}),
    ]


def test_amds_gpus_are_pinned_by_their_own_variable(machine: Machine) -> None:
    machine(["AMD Instinct MI300X"] * 2, hip="6.4")
    slots = on_torch_devices()
    assert [slot.name for slot in slots] == ["rocm0", "rocm1"]
    assert [slot.environment["HIP_VISIBLE_DEVICES"] for slot in slots] == ["0", "1"]


def test_apples_gpu_is_one(machine: Machine) -> None:
    machine([], mps=True)
    assert on_torch_devices() == [Slot("mps")]


@pytest.mark.parametrize(
    ("wanted", "slots"),
    [
        (["cuda2", "cuda0"], ["cuda0", "cuda2"]),
        (["cuda"], ["cuda0", "cuda1", "cuda2"]),
        (["cuda1", "cpu"], ["cuda1", "cpu"]),
    ],
)
def test_devices_can_be_chosen(machine: Machine, wanted: list[str], slots: list[str]) -> None:
    machine(["NVIDIA L4"] * 3, cuda="13.0")
    assert [slot.name for slot in on_torch_devices(wanted)] == slots


def test_a_device_that_is_not_there_is_named_with_those_that_are(machine: Machine) -> None:
    machine(["NVIDIA L4"], cuda="13.0")
    with pytest.raises(NoDevice, match=r"no device cuda1; there are: cuda0, cpu"):
        on_torch_devices(["cuda1"])


# -- when something is wrong --------------------------------------------------------------------------


def test_a_gpu_that_torch_does_not_see_is_a_fault_and_no_reason_to_be_slow(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine([], cuda="13.0")
    (tmp_path / "driver").touch()
    with pytest.raises(NoDevice, match=r"built for cuda 13\.0\) sees no GPU"):
        on_torch_devices()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert on_torch_devices() == [Slot("cpu", HIDDEN)]  # hidden on purpose


def test_a_broken_driver_is_told_in_its_own_words(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open')")
    with pytest.raises(NoDevice, match=r"torch can't be used: ImportError: libcuda\.so\.1"):
        on_torch_devices()
    assert on_torch_devices(["cpu"]) == [Slot("cpu", HIDDEN)]  # asks nobody


def test_a_missing_torch_is_named_with_what_to_install(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "torch" / "__init__.py").write_text("import sys; sys.exit(\"No module named 'torch'\")")
    with pytest.raises(NoDevice, match=r"fanfare\[gpu\]"):
        on_torch_devices()


def test_a_driver_that_hangs_is_not_waited_for(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "torch" / "__init__.py").write_text("import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(NoDevice, match="driver seems to hang"):
        ask_torch(within_s=1)
    assert time.monotonic() - began < 50


def test_the_launcher_stays_without_torch() -> None:
    assert "torch" not in vars(devices)
    code = "import gpu_worker.worker, gpu_worker.registry, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"

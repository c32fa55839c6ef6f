"""The device of this process, as the real torch tells it."""

import torch

from gpu_worker.devices import ask_torch
from gpu_worker.engines.diffusers.device import this_device


def test_the_real_torch_answers_the_launcher() -> None:
    answer = ask_torch()
    assert answer["torch"] == torch.__version__
    assert answer["devices"][-1]["kind"] == "cpu"
    assert len(answer["devices"]) - 1 == torch.cuda.device_count() or torch.backends.mps.is_available()


def test_a_process_on_the_cpu_says_how_much_memory_there_is() -> None:
    device = this_device("cpu")
    assert (device.kind, device.name, device.index) == ("cpu", "CPU", 0)
    assert device.memory_bytes
    assert device.memory_bytes > 2**30


def test_without_a_launcher_it_is_the_best_there_is() -> None:
    expected = "cpu" if not (torch.cuda.is_available() or torch.backends.mps.is_available()) else "gpu"
    assert (this_device().kind == "cpu") == (expected == "cpu")

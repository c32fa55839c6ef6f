"""`scripts/bench gpu`: its figures have the shape that is promised, and its models are the real ones."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import missing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # a model on a busy processor

KEYS = {"name", "value", "unit", "baseline", "ratio", "goal"}


@pytest.fixture(autouse=True)
def _torch() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("torch", "diffusers")):
        missing("no torch or no diffusers: the extra `gpu` is not installed")


def bench(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks", "gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def figures(file: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    process = bench("--json", str(file), *arguments)
    _, said = process.communicate(timeout=800)
    assert process.returncode == 0, said
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    assert all(set(one) == KEYS for one in found)
    assert all(isinstance(one["value"], float) and one["value"] >= 0 for one in found)
    return {one["name"]: one for one in found}


def test_a_tiny_model_through_the_queue(tmp_path: Path) -> None:
    few = ["--rounds", "1", "--images", "4", "--batch", "2", "--steps", "4"]
    found = figures(tmp_path / "found.json", "--tiny", *few)

    gain = found["tiny SDXL: whole queue, batches of 2, against the whole queue, one at a time"]
    assert gain["goal"] == "ratio >= 2"
    assert gain["ratio"] == pytest.approx(gain["value"] / gain["baseline"], rel=0.01)
    overhead = found["tiny SDXL: whole queue, batches of 2, against the bare loop"]
    assert overhead["goal"] == "ratio >= 0.97"


def test_a_shrunken_model_takes_the_way_of_the_real_ones(tmp_path: Path) -> None:
    found = figures(tmp_path / "found.json", "--real", "--small", "--models", "sd15")

    assert found["sd15: whole queue, one image, 2 steps"]["goal"] is None  # goals are for GPUs
    assert {"sd15: cancel, until the engine is free", "measured matrix rate"} <= set(found)


def test_an_interrupted_run_ends_at_once_and_keeps_what_it_has(tmp_path: Path) -> None:
    process = bench("--json", str(tmp_path / "found.json"), "--real", "--small", "--models", "sd15")
    assert process.stdout is not None
    while "matrix rate" not in process.stdout.readline():
        assert process.poll() is None

    process.send_signal(signal.SIGINT)

    process.communicate(timeout=200)
    assert process.returncode in (130, -signal.SIGINT)  # why also that: see test_chaos
    assert len(json.loads((tmp_path / "found.json").read_text("utf-8"))) >= 1


@pytest.mark.parametrize(
    ("name", "teraflops"), [("sdxl", 416), ("sd15", 82.8), ("flux-dev", 2098), ("flux-schnell", 288.3)]
)
def test_an_architecture_is_the_published_one(name: str, teraflops: float) -> None:
    import torch

    from scripts.benchmarks.gpu.architectures import ARCHITECTURES, Fewer, made_of
    from scripts.benchmarks.gpu.flops import image_flops, parameters

    architecture = ARCHITECTURES[name]
    with made_of(torch.bfloat16, torch.device("meta")):
        pipe: Any = architecture.build(Fewer())
    denoiser = pipe.transformer if architecture.family == "flux" else pipe.unet

    assert parameters(denoiser) == pytest.approx(architecture.parameters, abs=0.01)
    assert parameters(pipe.vae) == pytest.approx(83.65, abs=0.2)
    assert image_flops(architecture, pipe) / 1e12 == pytest.approx(teraflops, rel=0.005)

"""What only a GPU shows: its precision, its memory that really runs out, its kernels, and how it breaks.

Without a GPU these skip, in CI as well.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.messages import FailureCode, LoraUse
from gpu_worker.engines.base import CANCELED, Failure, Picture
from gpu_worker.engines.diffusers import memory, speed
from gpu_worker.engines.diffusers.catalog import Limits, LoraEntry
from gpu_worker.engines.diffusers.weights import inspect
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.rig import Rig, Watching, entry, same, seeds
from tests.gpu_worker.engines.diffusers.tiny_loras import build_lora

if not torch.cuda.is_available():
    pytest.skip("no GPU here", allow_module_level=True)

GPU = torch.device("cuda")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Deterministic behavior was enabled"
)  # as in `prepare_process`
ROOT = Path(__file__).parents[4]
speed.prepare_process(GPU)


@pytest.fixture
def rig(tiny_models: TinyModels) -> Iterator[Rig]:
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), device=GPU)
    yield rig
    rig.close()


@pytest.fixture(scope="module", autouse=True)
def _libraries_have_begun(tiny_models: TinyModels) -> None:
    """They keep some memory from their first use on."""
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), device=GPU)
    rig.picture()
    rig.close()


@pytest.fixture
def limited() -> Iterator[None]:
    """Whatever a test does to the memory that this process may take."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    memory.empty(GPU)


def taken() -> int:
    """Bytes, once nothing is kept for later."""
    memory.empty(GPU)
    return memory.used_bytes(GPU) or 0


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "z-image"])
def test_each_family_is_made_on_the_gpu_in_its_precision(tiny_models: TinyModels, family: str) -> None:
    rig = Rig(entry("tiny", family, tiny_models[family]), device=GPU)

    picture = rig.picture()

    told = picture.made_with
    assert (told["device"], told["device_kind"]) == (torch.cuda.get_device_name(), "cuda")
    assert told["dtype"] == speed.dtype_name(speed.dtype_of("auto", GPU))
    assert len(picture.image.getcolors(10_000) or []) > 50
    rig.close()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_reproducible_images_depend_on_nothing_beside_them(tiny_models: TinyModels, family: str) -> None:
    rig = Rig(entry("tiny", family, tiny_models[family], strict_batch=3), device=GPU)
    alone = rig.picture("wanted", seed=9, reproducible=True)
    rig.pictures(*seeds(rig, 3))
    wanted, neighbours = rig.request("wanted", seed=9, reproducible=True), seeds(rig, 2, reproducible=True)

    beside, first = rig.pictures(*neighbours, wanted)[-1], rig.pictures(wanted, *neighbours)[0]

    assert same(alone, beside)
    assert same(alone, first)
    rig.close()


def test_a_canceled_batch_ends_within_a_step_and_leaves_no_trace(rig: Rig) -> None:
    before = rig.picture()
    watch = Watching(lambda request_id: len(watch.fractions[request_id]) >= 2)
    requests = seeds(rig, 3, steps=50)

    assert rig.generate(*requests, watch=watch) == [CANCELED] * 3

    assert [len(watch.fractions[request.id]) for request in requests] == [2, 2, 2]
    assert same(before, rig.picture())


# -- memory ------------------------------------------------------------------------------------------------


def test_an_engine_that_is_closed_gives_all_back(tiny_models: TinyModels) -> None:
    before = taken()
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), device=GPU)
    rig.pictures(*seeds(rig, 4))
    assert taken() > before

    rig.close()
    del rig

    assert taken() - before < 2**20  # what a library keeps for itself


def test_models_give_way_to_each_other_and_come_back_the_same(tiny_models: TinyModels) -> None:
    families = ("sdxl", "flux")
    weights = {name: inspect(tiny_models[name], name).bytes_as("bfloat16") for name in families}
    rig = Rig(
        *(entry(name, name, tiny_models[name]) for name in families),
        budget=max(weights.values()),
        device=GPU,
    )
    before = rig.picture(model="sdxl")
    alone = taken()

    rig.picture(model="flux")
    assert rig.engine.state().loaded == ("flux",)
    assert taken() - alone < weights["flux"]  # SDXL is not there any more
    after = rig.picture(model="sdxl")

    assert same(before, after)
    rig.close()


def test_every_image_is_made_where_memory_runs_out(tiny_models: TinyModels, limited: None) -> None:
    # Given a device that holds one image of this size, but not four at once
    limits = Limits(min_size=32, max_size=512, batch=4)
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"], limits=limits), device=GPU)
    peaks = {batch: most_taken(rig, batch) for batch in (1, 4)}
    assert peaks[4] > 1.5 * peaks[1], peaks
    allow(sum(peaks.values()) // 2)

    pictures = rig.pictures(*seeds(rig, 4, width=448, height=448))

    assert all({"tiling", "batch 2"} & set(_ladder(picture)) for picture in pictures)
    rig.close()


def test_where_nothing_helps_the_image_fails_and_the_next_one_does_not(
    tiny_models: TinyModels, limited: None
) -> None:
    limits = Limits(min_size=32, max_size=2048, batch=4)
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"], limits=limits), device=GPU)
    before = rig.picture()
    memory.empty(GPU)
    allow(torch.cuda.memory_reserved() + 2**22)

    (outcome,) = rig.generate(rig.request(width=2048, height=2048, steps=2))
    torch.cuda.set_per_process_memory_fraction(1.0)

    assert isinstance(outcome, Failure), outcome.made_with
    assert (outcome.code, outcome.retryable) == (FailureCode.OUT_OF_MEMORY, True)
    assert same(before, rig.picture())
    rig.close()


def most_taken(rig: Rig, batch: int) -> int:
    """Bytes that a batch takes from the device."""
    memory.empty(GPU)
    torch.cuda.reset_peak_memory_stats()
    rig.pictures(*seeds(rig, batch, width=448, height=448))
    return torch.cuda.max_memory_reserved()


def allow(size: int) -> None:
    """From now on this process gets so many bytes of the device."""
    memory.empty(GPU)
    torch.cuda.set_per_process_memory_fraction(size / (memory.total_bytes(GPU) or 1))


def _ladder(picture: Picture) -> list[str]:
    return str(picture.made_with.get("ladder", "")).split(", ")


def test_an_offloaded_model_makes_the_same_in_less_memory(tiny_models: TinyModels) -> None:
    whole = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), device=GPU)
    expected, all_there = whole.picture(), taken()
    whole.close()
    del whole
    before = taken()
    rig = Rig(entry("tiny", "sdxl", tiny_models["sdxl"]), budget=1, device=GPU)

    picture = rig.picture()

    assert picture.made_with["offloaded"] is True
    assert same(expected, picture)
    assert taken() - before < all_there - before
    rig.close()


# -- speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_compiled_it_makes_nearly_the_same(tiny_models: TinyModels, tmp_path: Path, family: str) -> None:
    lora = build_lora(tiny_models[family], tmp_path / "ink.safetensors")
    loras = {"ink": LoraEntry(source=str(lora))}
    plain, compiled = (
        Rig(entry("tiny", family, tiny_models[family], loras=loras, compile=wanted), device=GPU)
        for wanted in (False, True)
    )

    rows: list[dict[str, Any]] = [{}, {"loras": (LoraUse(name="ink"),)}, {}]
    for changes in rows:
        one, other = plain.picture(**changes), compiled.picture(**changes)
        assert other.made_with["compiled"] is True
        assert _mean_difference(one.image.tobytes(), other.image.tobytes()) < 8  # of 255

    assert compiled.pictures(*seeds(compiled, 4))
    plain.close()
    compiled.close()


def _mean_difference(one: bytes, other: bytes) -> float:
    return sum(abs(left - right) for left, right in zip(one, other, strict=True)) / len(one)


# -- a device that breaks ----------------------------------------------------------------------------------

BREAKS = """
import sys, torch
from pathlib import Path
from gpu_worker.engines.base import EngineLost
from tests.gpu_worker.engines.diffusers.rig import Rig, entry

rig = Rig(entry("tiny", "sdxl", Path(sys.argv[1])), device=torch.device("cuda"))
rig.picture()
adapter = rig.engine._residency.take("tiny").adapter

def break_it(*_):
    torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")]  # asserted on the device, told later
    return torch.zeros(1, 4, 8, 8, device="cuda")

adapter.denoise = break_it
try:
    print(rig.generate(rig.request()))
except EngineLost as exc:
    print("lost:", str(exc).splitlines()[0])
"""


def test_a_device_whose_context_is_broken_is_lost(tiny_models: TinyModels) -> None:
    process = subprocess.run(
        [sys.executable, "-c", BREAKS, str(tiny_models["sdxl"])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert "lost: " in process.stdout, process.stdout + process.stderr[-3000:]

"""Every name that a request may give works, with every pipeline, and draws from the rows' own generators."""

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from numpy.typing import NDArray

from contract.messages import Task
from gpu_worker.engines.diffusers import schedulers
from gpu_worker.engines.diffusers.families import FAMILIES
from gpu_worker.engines.diffusers.families.base import FamilyAdapter, Run
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS
from gpu_worker.engines.diffusers.schedulers import SCHEDULERS, UnknownScheduler, make, names_for
from tests.gpu_worker.engines.diffusers.conftest import TinyModels
from tests.gpu_worker.engines.diffusers.test_families import SIZE, loaded, with_pictures

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CASES = [
    (family, name, task)
    for family, facts in FAMILY_FACTS.items()
    for name in facts.schedulers
    for task in facts.pipelines
    if family != "sdxl" or task == "text-to-image"  # the others are as with sd15, and slower
]


def rows_of(adapter: FamilyAdapter, run: Run, seeds: list[int]) -> NDArray[np.uint8]:
    with torch.inference_mode():
        embeddings = adapter.encode("a red fox", None, cfg=False)
        rows = [with_pictures(run.task, embeddings, torch.Generator().manual_seed(seed)) for seed in seeds]
        pixels: NDArray[np.uint8] = adapter.decode(adapter.denoise(run, rows, lambda *_: None), run).numpy()
    return pixels


@pytest.mark.parametrize(("family", "name", "task"), CASES)
def test_a_row_depends_on_its_seed_alone(tiny_models: TinyModels, family: str, name: str, task: Task) -> None:
    adapter = loaded(tiny_models[family], family)
    run = Run(task, SIZE, SIZE, 4, 0.0, None if task == "text-to-image" else 0.8, scheduler=name)

    once, again = rows_of(adapter, run, [7, 1]), rows_of(adapter, run, [7, 2])

    assert once.std() > 5
    assert np.array_equal(once[0], again[0])
    assert not np.array_equal(once[1], again[1])


def test_names_differ_in_what_they_make(tiny_models: TinyModels) -> None:
    adapter = loaded(tiny_models["sd15"], "sd15")

    made = {
        name: rows_of(adapter, Run("text-to-image", SIZE, SIZE, 5, 0.0, scheduler=name), [1]).tobytes()
        for name in names_for("sd15")
    }

    assert len(set(made.values())) == len(made)


def test_a_model_keeps_its_own_where_none_is_named() -> None:
    own = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1)
    own.set_timesteps(3)

    fresh = make(None, own)

    assert type(fresh) is PNDMScheduler
    assert fresh is not own
    assert fresh.config.skip_prk_steps
    assert fresh.num_inference_steps is None


def test_another_knows_how_the_model_was_trained() -> None:
    own = PNDMScheduler(**BETAS, prediction_type="v_prediction", skip_prk_steps=True, steps_offset=1)

    euler, karras = make("euler", own), make("dpmpp-2m-karras", own)

    assert type(euler) is EulerDiscreteScheduler
    assert (euler.config.beta_end, euler.config.prediction_type) == (0.012, "v_prediction")
    assert type(karras) is DPMSolverMultistepScheduler
    assert karras.config.use_karras_sigmas


def test_a_flow_keeps_its_shift_under_another_name() -> None:
    own = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)

    euler = make("flow-euler", own)

    assert type(euler) is FlowMatchEulerDiscreteScheduler
    assert euler.config.shift == 3.0


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownScheduler, match=r"'eulr'; there are: .*euler-a"):
        make("eulr", PNDMScheduler(**BETAS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_offered_only_what_there_is(family: str) -> None:
    assert set(names_for(family)) <= SCHEDULERS.keys()
    flow = {name for name in names_for(family) if name.startswith("flow-")}
    assert flow in (set(), set(names_for(family)))


def test_every_scheduler_is_of_use_to_a_family() -> None:
    assert {name for family in FAMILIES for name in schedulers.names_for(family)} == SCHEDULERS.keys()

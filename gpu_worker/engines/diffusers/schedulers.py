"""Schedulers, by the names under which users know them."""

from collections.abc import Mapping
from typing import Any, Final

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

Options = Mapping[str, Any]

KARRAS: Final[Options] = {"use_karras_sigmas": True}
PLAIN: Final[Options] = {"use_karras_sigmas": False}
ODE: Final[Options] = {"algorithm_type": "dpmsolver++", "solver_order": 2}
SDE: Final[Options] = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}

# Left out: DPM++ SDE (draws its noise from a seed of its own, not from the rows' generators), LMS (wants
# scipy), DEIS (calls numpy in a way that numpy 2 gives up).
SCHEDULERS: Final[Mapping[str, tuple[Any, Options]]] = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {**ODE, **PLAIN}),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {**ODE, **KARRAS}),
    "dpmpp-2m-sde": (DPMSolverMultistepScheduler, {**SDE, **PLAIN}),
    "dpmpp-2m-sde-karras": (DPMSolverMultistepScheduler, {**SDE, **KARRAS}),
    "euler": (EulerDiscreteScheduler, PLAIN),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, PLAIN),
    "lcm": (LCMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {"solver_type": "bh2", **PLAIN}),
    "flow-euler": (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": False}),
}


class UnknownScheduler(Exception):
    """There is no scheduler of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no scheduler {name!r}; there are: {', '.join(SCHEDULERS)}")


def make(name: str | None, own: SchedulerMixin) -> SchedulerMixin:
    """A fresh one, for one run, with what the model's own one says of how the model was trained.

    None: of the same kind as the model's own. Raises UnknownScheduler.
    """
    if name is None:
        return type(own).from_config(own.config)
    if name not in SCHEDULERS:
        raise UnknownScheduler(name)
    kind, options = SCHEDULERS[name]
    return kind.from_config(own.config, **carried_over(own.config, kind), **options)


def names_for(family: str) -> tuple[str, ...]:
    """Those that are right for a family. Raises KeyError for one that isn't known."""
    return FAMILY_FACTS[family].schedulers


def carried_over(config: Options, kind: type) -> Options:
    """The shift of a flow goes by another name in Euler's scheduler than in the solvers."""
    if kind is FlowMatchEulerDiscreteScheduler and "shift" not in config and "flow_shift" in config:
        return {"shift": config["flow_shift"]}
    return {}

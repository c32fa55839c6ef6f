"""What is told of each image: enough to make it again."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from contract.messages import Device, JsonScalar
from gpu_worker.engines.base import ImageRequest
from gpu_worker.engines.diffusers.catalog import ENGINE_NAME
from gpu_worker.engines.diffusers.families.base import Run
from gpu_worker.engines.diffusers.making import Made
from gpu_worker.engines.diffusers.residency import Resident

LIBRARIES = ("diffusers", "torch", "transformers", "peft")


def record(
    request: ImageRequest,
    run: Run,
    made: Made,
    resident: Resident,
    device: Device,
    loras: Sequence[tuple[str, float]],
    safety: str | None,
) -> dict[str, JsonScalar]:
    """`made_with` of one image. What was not at work is left out."""
    entry = resident.entry
    facts: dict[str, JsonScalar] = {
        "engine": ENGINE_NAME,
        "family": entry.family,
        "revision": entry.revision,
        "task": run.task,
        "scheduler": run.scheduler or type(resident.adapter.pipe.scheduler).__name__,
        "steps": run.steps,
        "guidance": run.guidance,
        "strength": run.strength,
        "loras": ", ".join(f"{alias}:{weight:g}" for alias, weight in loras) or None,
        "lora_revisions": ", ".join(f"{alias}:{entry.loras[alias].revision}" for alias, _ in loras) or None,
        "seed": request.seed,
        "dtype": resident.dtype,
        "device": device.name,
        "device_kind": device.kind,
        "batch": made.batch,
        "reproducible": request.reproducible,
        "ladder": ", ".join(made.ladder) or None,
        "offloaded": resident.place == "offloaded" or None,
        "safety": safety,
        "prompt_truncated": made.truncated or None,
        **_traits(request, resident),
        **_versions(),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _traits(request: ImageRequest, resident: Resident) -> dict[str, JsonScalar]:
    """What was at work in this image: nothing compiled, where it is to be the same bit for bit."""
    traits = dict(resident.traits)
    if request.reproducible:
        traits.pop("compiled", None)
    return dict(traits)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[f"{name}_version"] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""The registry of engines: how each is made, and where it runs."""

from collections.abc import Callable
from dataclasses import dataclass

from gpu_worker.devices import Slot, my_slot, on_cpu, on_torch_devices, remote
from gpu_worker.engines.base import Engine
from gpu_worker.settings import Settings


def _sketch(settings: Settings) -> Engine:
    from gpu_worker.engines.sketch import Simulator, SketchEngine

    if settings.sketch_faults:
        return Simulator(settings.sketch_faults, delay_s=settings.sketch_delay_s)
    return SketchEngine(delay_s=settings.sketch_delay_s)


def _openai(settings: Settings) -> Engine:
    from gpu_worker.engines.openai import OpenAIEngine

    return OpenAIEngine(
        api_key=settings.images_api_key.get_secret_value(),
        base_url=settings.images_url,
        models=settings.images_models,
        timeout_s=settings.images_timeout_s,
    )


def _diffusers(settings: Settings) -> Engine:
    from gpu_worker.engines.diffusers.opening import open_engine

    return open_engine(
        settings.node_catalog,
        settings.node_models,
        settings.node_model_cache,
        download=settings.node_download,
        slot=my_slot(),
    )


@dataclass(frozen=True)
class Registered:
    """How an engine is made, and where it runs: one process for each slot."""

    make: Callable[[Settings], Engine]  # imports the engine: only the process that serves it pays for that
    slots: Callable[[Settings], list[Slot]]  # asked in the launcher; raises `NoDevice`
    concurrency: int  # images in hand, where the settings don't say: one batch is made, another is at hand


# A new engine is a file in `engines/` and a line here.
ENGINES: dict[str, Registered] = {
    "sketch": Registered(_sketch, lambda _: on_cpu(), concurrency=4),
    "openai": Registered(_openai, lambda _: remote(), concurrency=4),
    "diffusers": Registered(
        _diffusers, lambda settings: on_torch_devices(settings.node_devices), concurrency=16
    ),
}

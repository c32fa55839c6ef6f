"""How a pipeline is called: with a fresh scheduler, and so that nothing of the call stays behind."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers import schedulers
from gpu_worker.engines.diffusers.families.base import Arguments, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.collating import collate

AT_LEAST_ONE_STEP = 1 + 1e-6  # some pipelines round down what is a hair less than 1


class Pipelines:
    """The pipelines of one model, one for each task. They share its modules; the first is the model's own."""

    def __init__(self, pipe: DiffusionPipeline, names: Mapping[Task, str]) -> None:
        self._pipe = pipe
        self._names = names
        self._scheduler = pipe.scheduler
        self._made: dict[Task, DiffusionPipeline] = {"text-to-image": pipe}

    def of(self, task: Task) -> DiffusionPipeline:
        """The pipeline of this task; made, in a moment, when it is first asked for."""
        if task not in self._made:
            self._made[task] = sharing_modules(self._pipe, getattr(diffusers, self._names[task]))
        return self._made[task]

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep, **arguments: object) -> torch.Tensor:
        """The latents that the pipeline ends with. `arguments` are the family's own."""
        pipe = self.of(run.task)
        prompts = collate([row.embeddings.tensors for row in rows])
        wanted = {**of_the_run(run, rows), **prompts, **arguments, "callback_on_step_end": told(on_step)}
        vae_dtype = pipe.vae.dtype
        pipe.scheduler = schedulers.make(run.scheduler, self._scheduler)
        try:
            latents: torch.Tensor = pipe(**only_known(pipe, wanted), output_type="latent")[0]
        finally:
            pipe.scheduler = self._scheduler
            pipe.vae.to(vae_dtype)  # SDXL's is changed to read a picture, and would stay so after an error
            self._pipe.maybe_free_model_hooks()
        return latents


def sharing_modules(pipe: DiffusionPipeline, wanted: Callable[..., Any]) -> DiffusionPipeline:
    """Another pipeline around the same modules. (`from_pipe` would change their dtype.)"""
    options = {**pipe.components, **pipe.config, "add_watermarker": False, "requires_safety_checker": False}
    known = inspect.signature(wanted).parameters
    other = wanted(**{name: value for name, value in options.items() if name in known} | pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def of_the_run(run: Run, rows: Sequence[Row]) -> Arguments:
    """What the pipelines of all families call by the same name."""
    arguments: Arguments = {
        "width": run.width,
        "height": run.height,
        "num_inference_steps": run.steps,
        "generator": [row.generator for row in rows],
    }
    if run.task != "text-to-image":
        arguments["image"] = [row.reference for row in rows]
        if run.strength is not None:
            arguments["strength"] = min(1.0, max(run.strength, AT_LEAST_ONE_STEP / run.steps))
    if run.task == "inpainting":
        arguments["mask_image"] = [row.mask for row in rows]
    return arguments


def only_known(pipe: DiffusionPipeline, arguments: Arguments) -> Arguments:
    """Some pipelines take the size from the picture that they start from."""
    known = inspect.signature(type(pipe).__call__).parameters
    return {name: value for name, value in arguments.items() if name in known}


def told(on_step: OnStep) -> Callable[[DiffusionPipeline, int, object, Arguments], Arguments]:
    """The callback, as diffusers wants it. Image-to-image makes fewer steps than were asked for."""

    def at_step_end(pipe: DiffusionPipeline, step: int, _timestep: object, tensors: Arguments) -> Arguments:
        on_step(step, pipe.num_timesteps, tensors["latents"])
        return {}

    return at_step_end

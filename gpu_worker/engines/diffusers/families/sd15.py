"""Stable Diffusion 1.x and 2.x: one CLIP, a UNet, classifier-free guidance."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers.families.base import Embeddings, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.calling import Pipelines
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes
from gpu_worker.engines.diffusers.families.prompts import clip_cuts
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS


class Sd15:
    """Guidance above 1 runs the model twice and reads the negative prompt."""

    family: ClassVar[str] = "sd15"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["sd15"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["sd15"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)

    def uses_cfg(self, guidance: float) -> bool:
        distilled = self.pipe.unet.config.time_cond_proj_dim is not None
        return guidance > 1 and not distilled

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        device = self.pipe._execution_device
        positive, negative = self.pipe.encode_prompt(prompt, device, 1, cfg, negative_prompt or None)
        tensors = {"prompt_embeds": positive} | ({"negative_prompt_embeds": negative} if cfg else {})
        return Embeddings(tensors, truncated=clip_cuts(self.pipe.tokenizer, prompt))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(run, rows, on_step, guidance_scale=run.guidance)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return to_bytes(decoded(self.pipe.vae, latents / self.pipe.vae.config.scaling_factor))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return latents

    def denoiser(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.pipe.unet
        return unet

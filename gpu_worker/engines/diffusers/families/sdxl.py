"""Stable Diffusion XL with its Turbo and Lightning: two CLIPs, a UNet, classifier-free guidance."""

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

EMBEDS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


class Sdxl:
    """Guidance above 1 runs the model twice and reads the negative prompt; Turbo and Lightning want 0."""

    family: ClassVar[str] = "sdxl"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["sdxl"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["sdxl"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)

    def uses_cfg(self, guidance: float) -> bool:
        distilled = self.pipe.unet.config.time_cond_proj_dim is not None
        return guidance > 1 and not distilled

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        made = self.pipe.encode_prompt(
            prompt, do_classifier_free_guidance=cfg, negative_prompt=negative_prompt or None
        )
        tensors = {name: tensor for name, tensor in zip(EMBEDS, made, strict=True) if tensor is not None}
        return Embeddings(tensors, truncated=clip_cuts(self.pipe.tokenizer, prompt))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(run, rows, on_step, guidance_scale=run.guidance)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return to_bytes(decoded(self.pipe.vae, self._denormalized(latents)))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return latents

    def denoiser(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.pipe.unet
        return unet

    def _denormalized(self, latents: torch.Tensor) -> torch.Tensor:
        """Playground's autoencoder, of the same family, has a mean and a deviation for each channel."""
        config = self.pipe.vae.config
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is None or deviation is None:
            return latents / float(config.scaling_factor)
        by_channel = (1, -1, 1, 1)
        scale = latents.new_tensor(deviation).view(by_channel) / float(config.scaling_factor)
        return latents * scale + latents.new_tensor(mean).view(by_channel)

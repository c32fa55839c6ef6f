"""Stable Diffusion 3 and 3.5: two CLIPs and, where it is there, T5; a flow transformer; guidance."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers.families.base import Embeddings, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.calling import Pipelines
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes, unshifted
from gpu_worker.engines.diffusers.families.prompts import clip_cuts, is_longer
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

EMBEDS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
T5_TOKENS = 256


class Sd3:
    """Guidance above 1 runs the model twice and reads the negative prompt."""

    family: ClassVar[str] = "sd3"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["sd3"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["sd3"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)

    def uses_cfg(self, guidance: float) -> bool:
        return guidance > 1

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        made = self.pipe.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=cfg,
            negative_prompt=negative_prompt,
            max_sequence_length=T5_TOKENS,
        )
        tensors = {name: tensor for name, tensor in zip(EMBEDS, made, strict=True) if tensor is not None}
        return Embeddings(tensors, truncated=self._cuts(prompt))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(run, rows, on_step, guidance_scale=run.guidance)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return to_bytes(decoded(self.pipe.vae, unshifted(latents, self.pipe.vae)))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return latents

    def denoiser(self) -> torch.nn.Module:
        transformer: torch.nn.Module = self.pipe.transformer
        return transformer

    def _cuts(self, prompt: str) -> bool:
        """T5 reads further than the CLIPs do; many leave it away, for its size."""
        if self.pipe.text_encoder_3 is None:
            return clip_cuts(self.pipe.tokenizer, prompt)
        return is_longer(self.pipe.tokenizer_3, prompt, T5_TOKENS)

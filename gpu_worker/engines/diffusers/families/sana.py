"""Sana: Gemma reads the prompt, a linear transformer, an autoencoder that makes 1/32 of each side."""

import inspect
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers.families.base import Embeddings, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.calling import Pipelines
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes, unshifted
from gpu_worker.engines.diffusers.families.prompts import is_longer
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

TOKENS = 300
EMBEDS = (
    "prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask",
)  # fmt: skip


class Sana:
    """Guidance above 1 runs the model twice and reads the negative prompt. Any size is made as asked for."""

    family: ClassVar[str] = "sana"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["sana"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["sana"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)
        self._instruction = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default

    def uses_cfg(self, guidance: float) -> bool:
        return guidance > 1

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        made = self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=cfg,
            negative_prompt=negative_prompt or "",
            max_sequence_length=TOKENS,
            complex_human_instruction=self._instruction,
        )
        tensors = {name: tensor for name, tensor in zip(EMBEDS, made, strict=True) if tensor is not None}
        return Embeddings(tensors, truncated=is_longer(self.pipe.tokenizer, prompt, TOKENS - 1))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(
            run,
            rows,
            on_step,
            guidance_scale=run.guidance,
            negative_prompt=None,
            use_resolution_binning=False,
        )

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return to_bytes(decoded(self.pipe.vae, unshifted(latents, self.pipe.vae)))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return latents

    def denoiser(self) -> torch.nn.Module:
        transformer: torch.nn.Module = self.pipe.transformer
        return transformer

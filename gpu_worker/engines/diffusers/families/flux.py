"""Flux.1 dev and schnell: CLIP and T5, a flow transformer to which guidance is just another input."""

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

T5_TOKENS = 512
T5_TOKENS_DISTILLED = 256  # of schnell, by its model card


class Flux:
    """Guidance is distilled into it (into schnell, none): it never runs twice, reads no negative prompt."""

    family: ClassVar[str] = "flux"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["flux"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["flux"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)
        guided = pipe.transformer.config.guidance_embeds
        self._t5_tokens = T5_TOKENS if guided else T5_TOKENS_DISTILLED

    def uses_cfg(self, guidance: float) -> bool:  # noqa: ARG002  # the port's
        return False

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:  # noqa: ARG002
        words, pooled, _ = self.pipe.encode_prompt(prompt, max_sequence_length=self._t5_tokens)
        tensors = {"prompt_embeds": words, "pooled_prompt_embeds": pooled}
        return Embeddings(tensors, truncated=is_longer(self.pipe.tokenizer_2, prompt, self._t5_tokens))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(run, rows, on_step, guidance_scale=run.guidance)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        return to_bytes(decoded(self.pipe.vae, unshifted(self.spatial(latents, run), self.pipe.vae)))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        factor = self.pipe.vae_scale_factor
        unpacked: torch.Tensor = self.pipe._unpack_latents(latents, run.height, run.width, factor)
        return unpacked

    def denoiser(self) -> torch.nn.Module:
        transformer: torch.nn.Module = self.pipe.transformer
        return transformer

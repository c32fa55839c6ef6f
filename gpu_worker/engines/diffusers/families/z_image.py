"""Z-Image and Z-Image-Turbo: Qwen3 reads the prompt, a flow transformer takes texts of any length."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers.families.base import Embedding, Embeddings, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.calling import Pipelines
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes, unshifted
from gpu_worker.engines.diffusers.families.prompts import is_longer
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

TOKENS = 512  # with the words of the chat around the prompt


class ZImage:
    """Any guidance above 0 runs the model twice and reads the negative prompt; Turbo wants 0."""

    family: ClassVar[str] = "z-image"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["z-image"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["z-image"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)

    def uses_cfg(self, guidance: float) -> bool:
        return guidance > 0

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        positive, negative = self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=cfg,
            negative_prompt=negative_prompt or "",
            max_sequence_length=TOKENS,
        )
        tensors: dict[str, Embedding] = {"prompt_embeds": positive}
        if cfg:
            tensors["negative_prompt_embeds"] = negative
        return Embeddings(tensors, truncated=is_longer(self.pipe.tokenizer, self._chat(prompt), TOKENS))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        return self._pipelines.denoise(run, rows, on_step, guidance_scale=run.guidance)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return to_bytes(decoded(self.pipe.vae, unshifted(latents, self.pipe.vae)))

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:  # noqa: ARG002  # the port's
        return latents

    def denoiser(self) -> torch.nn.Module:
        transformer: torch.nn.Module = self.pipe.transformer
        return transformer

    def _chat(self, prompt: str) -> str:
        said = [{"role": "user", "content": prompt}]
        chat: str = self.pipe.tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return chat

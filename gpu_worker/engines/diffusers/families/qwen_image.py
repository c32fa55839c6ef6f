"""Qwen-Image: Qwen2.5-VL reads the prompt, a flow transformer, an autoencoder that is made for films."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline

from contract.messages import Task
from gpu_worker.engines.diffusers.families.base import Embeddings, OnStep, Row, Run
from gpu_worker.engines.diffusers.families.calling import Pipelines
from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes
from gpu_worker.engines.diffusers.families.prompts import is_longer
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

TOKENS = 512
NO_WORDS = " "  # in the place of a negative prompt, as its makers do it


class QwenImage:
    """Guidance above 1 runs the model twice and reads the negative prompt."""

    family: ClassVar[str] = "qwen-image"
    pipelines: ClassVar[Mapping[Task, str]] = FAMILY_FACTS["qwen-image"].pipelines
    size_multiple: ClassVar[int] = FAMILY_FACTS["qwen-image"].size_multiple

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe = pipe
        self._pipelines = Pipelines(pipe, self.pipelines)

    def uses_cfg(self, guidance: float) -> bool:
        return guidance > 1

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        tensors = self._read("prompt_embeds", prompt)
        if cfg:
            tensors |= self._read("negative_prompt_embeds", negative_prompt or NO_WORDS)
        return Embeddings(tensors, truncated=self._cuts(prompt))

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        scale = run.guidance if self.uses_cfg(run.guidance) else 1.0
        return self._pipelines.denoise(run, rows, on_step, true_cfg_scale=scale)

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        config = self.pipe.vae.config
        spatial, by_channel = self.spatial(latents, run), (1, -1, 1, 1)
        scale, mean = spatial.new_tensor(config.latents_std), spatial.new_tensor(config.latents_mean)
        one_frame = (spatial * scale.view(by_channel) + mean.view(by_channel)).unsqueeze(2)
        return to_bytes(decoded(self.pipe.vae, one_frame)[:, :, 0])

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        factor = self.pipe.vae_scale_factor
        frames: torch.Tensor = self.pipe._unpack_latents(latents, run.height, run.width, factor)
        return frames[:, :, 0]

    def denoiser(self) -> torch.nn.Module:
        transformer: torch.nn.Module = self.pipe.transformer
        return transformer

    def _read(self, name: str, prompt: str) -> dict[str, torch.Tensor]:
        """The embedding and its mask: None of the pipeline's, as long as nothing is padded."""
        words, mask = self.pipe.encode_prompt(prompt, max_sequence_length=TOKENS)
        whole = torch.ones(words.shape[:2], dtype=torch.long, device=words.device)
        return {name: words, f"{name}_mask": whole if mask is None else mask}

    def _cuts(self, prompt: str) -> bool:
        asked = self.pipe.prompt_template_encode.format(prompt)
        return is_longer(self.pipe.tokenizer, asked, TOKENS + self.pipe.prompt_template_encode_start_idx)

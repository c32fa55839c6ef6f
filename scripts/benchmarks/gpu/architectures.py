"""Real architectures from their published configurations, with random weights, made where they are used.

Speed doesn't depend on what the weights are. The text encoders are real as well; only the tokenizers are
small ones, with one token for each character: prompts are padded to the same 77 and 512 tokens all the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.gpu_worker.engines.diffusers.tiny import clip_tokenizer, t5_tokenizer

Config = Mapping[str, Any]
FULL: Final = 1  # what `narrower` is for the real thing
BETAS: Final = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

SD15_UNET: Final[Config] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL_UNET: Final[Config] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CLIP_L: Final[Config] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
CLIP_G: Final[Config] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip
T5_XXL: Final[Config] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """One model, and what is asked of it."""

    family: str
    build: Callable[["Fewer"], DiffusionPipeline]  # where and as what `made_of` says
    parameters: float  # of the denoiser, in millions: it is not the real one if this differs
    size: int  # pixels, each side
    steps: int
    guidance: float
    batches: tuple[int, ...]
    memory: float  # GiB of the device that all measurements want


@dataclass(frozen=True)
class Fewer:
    """Fewer layers, for a try on a CPU; the widths stay."""

    layers: bool = False

    def of(self, config: Config, **changes: Any) -> dict[str, Any]:  # noqa: ANN401  # configurations hold all kinds
        """The configuration; with `changes` where there shall be fewer."""
        return {**config, **changes} if self.layers else dict(config)


@contextmanager
def made_of(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Modules made within are of this dtype, on this device from the beginning."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def scheduler(make: Callable[..., Any], **config: Any) -> Any:  # noqa: ANN401  # diffusers has no types
    """It calculates in full precision on the CPU, wherever the model is."""
    with made_of(torch.float32, torch.device("cpu")):
        return make(**config)


def vae(fewer: Fewer, **config: Any) -> AutoencoderKL:  # noqa: ANN401  # configurations hold all kinds
    """The autoencoder of Stable Diffusion, in which only numbers differ between the models."""
    real = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        **config,
    }  # fmt: skip
    return AutoencoderKL(**fewer.of(real, block_out_channels=(32,) * 4, layers_per_block=1))


def clip_config(fewer: Fewer, config: Config) -> CLIPTextConfig:
    """Ends a prompt as the small tokenizer does."""
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPTextConfig(**fewer.of({**config, **tokens}, num_hidden_layers=2))


def sd15(fewer: Fewer) -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        **fewer.of(SD15_UNET, block_out_channels=(32, 32, 64, 64), layers_per_block=1)
    )
    return StableDiffusionPipeline(
        vae=vae(fewer, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(clip_config(fewer, CLIP_L)),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=scheduler(
            PNDMScheduler, **BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(fewer: Fewer) -> DiffusionPipeline:
    narrow = {"block_out_channels": (32, 64, 64), "transformer_layers_per_block": 1, "attention_head_dim": 4}
    return StableDiffusionXLPipeline(
        vae=vae(fewer, scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(clip_config(fewer, CLIP_L)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(fewer, CLIP_G)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=UNet2DConditionModel(**fewer.of(SDXL_UNET, **narrow)),
        scheduler=scheduler(EulerDiscreteScheduler, **BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def flux_dev(fewer: Fewer) -> DiffusionPipeline:
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    return _flux(fewer, {"shift": 3.0, "use_dynamic_shifting": True, **shifts}, guided=True)


def flux_schnell(fewer: Fewer) -> DiffusionPipeline:
    return _flux(fewer, {"shift": 1.0}, guided=False)


def _flux(fewer: Fewer, schedule: Config, *, guided: bool) -> DiffusionPipeline:
    small_t5 = {"num_layers": 1, "d_ff": 64, "num_heads": 2, "d_model": 64}
    small = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 64}
    real = {
        "num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "guidance_embeds": guided,
    }  # fmt: skip
    return FluxPipeline(
        scheduler=scheduler(FlowMatchEulerDiscreteScheduler, **schedule),
        vae=vae(
            fewer, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(clip_config(fewer, CLIP_L)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(T5Config(**fewer.of(T5_XXL, **small_t5))),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(**fewer.of(real, **small)),
    )  # fmt: skip


# In the order in which they are measured, while there is time.
ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "sdxl": Architecture("sdxl", sdxl, 2567.46, 1024, 30, 5.0, (1, 4, 8), memory=40),
    "sd15": Architecture("sd15", sd15, 859.52, 512, 50, 7.5, (1, 4, 16), memory=16),
    "flux-schnell": Architecture("flux", flux_schnell, 11891.18, 1024, 4, 0.0, (1, 4), memory=90),
    "flux-dev": Architecture("flux", flux_dev, 11901.41, 1024, 28, 3.5, (1, 2), memory=90),
}

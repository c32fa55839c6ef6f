"""Tiny pipelines with random weights, in the shape of the real ones: built in a moment, always the same.

`build(family, folder)` saves one as a model folder. Needs torch, diffusers, transformers; no hub, no pytest.
The pictures mean nothing, but prompt, negative prompt, seed and guidance all change them.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.models.normalization import RMSNorm
from diffusers.utils import logging as diffusers_logging
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from transformers.utils import logging as transformers_logging

PRINTABLE = [chr(code) for code in range(33, 127)]
BEGIN, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(family: str, folder: Path) -> Path:
    """Saves the family's tiny pipeline in `folder`, as safetensors, and returns the folder."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20250101)
        pipe = BUILDERS[family]()
        enliven(getattr(pipe, "transformer", None) or pipe.unet)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


@torch.no_grad()
def enliven(denoiser: torch.nn.Module) -> None:
    """Torch's own start damps the signal in each layer, until the prompt changes no pixel."""
    for module in denoiser.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.mul_(3**0.5)
        elif isinstance(module, torch.nn.RMSNorm | RMSNorm) and module.weight is not None:
            module.weight.mul_(3.0)  # of queries and keys: attention that picks, rather than averages


# -- text: one token for each character ------------------------------------------------------------------


def numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def clip_tokenizer() -> CLIPTokenizer:
    tokens = ["<|startoftext|>", "<|endoftext|>", *PRINTABLE, *(f"{char}</w>" for char in PRINTABLE)]
    return CLIPTokenizer(vocab=numbered(tokens), merges=[], model_max_length=77)


def clip_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_attention_heads=4,
        num_hidden_layers=3,
        initializer_factor=4.0,
    )


def t5_tokenizer() -> T5Tokenizer:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [("▁", -2.0), *((char, -3.0) for char in PRINTABLE)]
    return T5Tokenizer(vocab=[*special, *pieces], extra_ids=0, model_max_length=512)


def t5_encoder(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4
    )
    return T5EncoderModel(config)


def qwen_tokenizer() -> Qwen2Tokenizer:
    tokens = [PAD, BEGIN, END, "Ġ", "Ċ", *PRINTABLE]  # as byte-level BPE spells a space and a new line
    special = {"extra_special_tokens": [BEGIN, END]}
    return Qwen2Tokenizer(vocab=numbered(tokens), merges=[], chat_template=CHAT, **special)


def gemma_tokenizer() -> GemmaTokenizer:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *PRINTABLE]
    return GemmaTokenizer(vocab=numbered(tokens), merges=[], model_max_length=4096)


def language_model(width: int) -> dict[str, int | float]:
    """What the configurations of Qwen and Gemma have in common."""
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "initializer_range": 0.2,
    }


# -- pixels: four blocks, for the real factor 8 -------------------------------------------------------------


def vae(*, latent_channels: int = 4, force_upcast: bool = True, **config: object) -> AutoencoderKL:
    blocks = 4
    return AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        force_upcast=force_upcast,
        **config,
    )


def flow_vae(latent_channels: int = 4) -> AutoencoderKL:
    """As Flux, SD3 and Z-Image have it: shifted, without quantization layers."""
    return vae(
        latent_channels=latent_channels,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


# -- families --------------------------------------------------------------------------------------------


def sd15() -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    scheduler = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionPipeline(
        vae=vae(scaling_factor=0.18215),
        text_encoder=CLIPTextModel(clip_config(32)),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
        norm_num_groups=4,
    )
    scheduler = EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=CLIPTextModel(clip_config(32)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(32)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


def flux() -> DiffusionPipeline:
    """As Flux.1 dev: with distilled guidance."""
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    return flux_with(
        FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, **shifts), guided=True
    )


def flux_schnell() -> DiffusionPipeline:
    """As Flux.1 schnell: few steps, no guidance."""
    return flux_with(FlowMatchEulerDiscreteScheduler(shift=1.0), guided=False)


def flux_with(scheduler: FlowMatchEulerDiscreteScheduler, *, guided: bool) -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guided,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=flow_vae(),
        text_encoder=CLIPTextModel(clip_config(32)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(32),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def sd3() -> DiffusionPipeline:
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,  # no other number will do for inpainting
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=32,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(latent_channels=16),
        text_encoder=CLIPTextModelWithProjection(clip_config(32)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(32)),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(64),
        tokenizer_3=t5_tokenizer(),
    )


def z_image() -> DiffusionPipeline:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    with torch.no_grad():  # these two are made empty, to be read from a file
        transformer.x_pad_token.normal_()
        transformer.cap_pad_token.normal_()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(),
        text_encoder=Qwen3Model(Qwen3Config(vocab_size=len(qwen_tokenizer()), **language_model(32))),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def sana() -> DiffusionPipeline:
    """Its autoencoder has six blocks, for the real factor 32."""
    blocks = 6
    types = ("ResBlock",) * (blocks - 1) + ("EfficientViTBlock",)
    scales: tuple[tuple[int, ...], ...] = ((),) * (blocks - 1) + ((5,),)
    dc = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=types,
        decoder_block_types=types,
        encoder_block_out_channels=(8,) * blocks,
        decoder_block_out_channels=(8,) * blocks,
        encoder_layers_per_block=(1,) * blocks,
        decoder_layers_per_block=(1,) * blocks,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        sample_size=32,
    )
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=Gemma2Model(Gemma2Config(vocab_size=len(gemma_tokenizer()), **language_model(32))),
        vae=dc,
        transformer=transformer,
        scheduler=scheduler,
    )


def qwen_image() -> DiffusionPipeline:
    channels = 4
    qwen_vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, -0.4],
        latents_std=[1.5, 2.0, 2.5, 3.0],
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
    )
    shifts = {"base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192}
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0, use_dynamic_shifting=True, shift_terminal=0.02, **shifts
    )
    return QwenImagePipeline(
        scheduler=scheduler,
        vae=qwen_vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(qwen_vl_config(32)),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def qwen_vl_config(width: int) -> Qwen2_5_VLConfig:
    text = language_model(width) | {
        "vocab_size": len(qwen_tokenizer()),
        "bos_token_id": None,
        "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1000000.0},
    }
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision)


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "flux": flux,
    "flux-schnell": flux_schnell,
    "sd3": sd3,
    "z-image": z_image,
    "sana": sana,
    "qwen-image": qwen_image,
}

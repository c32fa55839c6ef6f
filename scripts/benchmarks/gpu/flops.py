"""How much is to be computed, counted by torch on the meta device: nothing is computed for it."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.benchmarks.gpu.architectures import Architecture, Fewer, made_of

TOKENS = {"sd15": (77, 768), "sdxl": (77, 2048), "flux": (512, 4096)}  # and how wide each is
TOKENS_OF_SCHNELL = 256
FACTOR = 8  # pixels for one latent, of all these autoencoders


def image_flops(architecture: Architecture, pipe: Any = None) -> float:  # noqa: ANN401  # diffusers has no types
    """Of one image: all steps of the denoiser, and the decoding. The text encoders are left out (1-2 %)."""
    if pipe is None:
        with made_of(torch.bfloat16, torch.device("meta")):
            pipe = architecture.build(Fewer())
    evaluations = architecture.steps * (
        2 if architecture.family != "flux" and architecture.guidance > 1 else 1
    )
    return evaluations * denoiser_flops(architecture, pipe) + decoder_flops(architecture, pipe)


def denoiser_flops(architecture: Architecture, pipe: Any) -> float:  # noqa: ANN401
    """Of one evaluation, for one image."""
    return _counted(lambda: _evaluate(architecture, pipe))


def decoder_flops(architecture: Architecture, pipe: Any) -> float:  # noqa: ANN401
    """Of one image."""
    side = architecture.size // FACTOR
    latents = torch.empty(1, pipe.vae.config.latent_channels, side, side, dtype=pipe.vae.dtype, device="meta")
    return _counted(lambda: pipe.vae.decode(latents))


def parameters(module: torch.nn.Module) -> float:
    """In millions."""
    return sum(one.numel() for one in module.parameters()) / 1e6


def _evaluate(architecture: Architecture, pipe: Any) -> None:  # noqa: ANN401
    side = architecture.size // FACTOR
    tokens, width = TOKENS[architecture.family]
    if architecture.family == "flux" and not pipe.transformer.config.guidance_embeds:
        tokens = TOKENS_OF_SCHNELL
    words = _empty(1, tokens, width)
    if architecture.family == "flux":
        pictures = (side // 2) ** 2
        guidance = _empty(1) if pipe.transformer.config.guidance_embeds else None
        pipe.transformer(
            hidden_states=_empty(1, pictures, 64), encoder_hidden_states=words,
            pooled_projections=_empty(1, 768), timestep=_empty(1), guidance=guidance,
            txt_ids=_empty(tokens, 3), img_ids=_empty(pictures, 3),
        )  # fmt: skip
        return
    added = (
        {"text_embeds": _empty(1, 1280), "time_ids": _empty(1, 6)} if architecture.family == "sdxl" else None
    )
    pipe.unet(_empty(1, 4, side, side), _empty(1), words, added_cond_kwargs=added)


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16, device="meta")


def _counted(evaluate: Any) -> float:  # noqa: ANN401
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        evaluate()
    return float(counter.get_total_flops())

"""From what an autoencoder gives to bytes, on the device: a quarter of what would have to be copied."""

from typing import Any

import torch

Autoencoder = Any  # diffusers has some, with no class in common
OVERFLOWS = torch.float16  # of SDXL's autoencoder: its config says `force_upcast`


def decoded(vae: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    """(B, channels, ...) as the autoencoder itself counts them -> its picture, about -1 to 1.

    What overflows in half precision would come out black: it is decoded once more, in full.
    """
    dtype = vae.dtype
    if dtype != OVERFLOWS or not vae.config.get("force_upcast", False):
        pictures = once_decoded(vae, latents.to(dtype))
        if dtype != OVERFLOWS or bool(torch.isfinite(pictures).all()):
            return pictures
    try:
        return once_decoded(vae.to(torch.float32), latents.float())
    finally:
        vae.to(dtype)


def once_decoded(vae: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    pictures: torch.Tensor = vae.decode(latents, return_dict=False)[0]
    return pictures


def to_bytes(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, height, width), about -1 to 1 -> uint8 (B, height, width, 3)."""
    levels = (pictures.float() / 2 + 0.5).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def unshifted(latents: torch.Tensor, vae: Autoencoder) -> torch.Tensor:
    """Latents of a flow model -> as its autoencoder counts them."""
    config = vae.config
    scale, shift = float(config.scaling_factor), float(config.get("shift_factor") or 0.0)
    return latents / scale + shift

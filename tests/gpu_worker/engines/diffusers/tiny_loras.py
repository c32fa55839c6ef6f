"""Tiny LoRA files for the tiny models, made by PEFT and saved by diffusers, as trainers do. No hub."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

DENOISER = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_ENCODER = ["q_proj", "v_proj"]
Tensors = dict[str, torch.Tensor]


def build_lora(
    model: Path,
    file: Path,
    *,
    seed: int = 0,
    rank: int = 2,
    denoiser: list[str] | None = None,
    text_encoder: bool = False,
    strength: float = 1.0,
) -> Path:
    """Saves a LoRA for the model of this folder; random, and strong enough to be seen."""
    pipe = DiffusionPipeline.from_pretrained(model, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = _layers(pipe, rank, DENOISER if denoiser is None else denoiser, text_encoder)
    for part in layers.values():
        for tensor in part.values():
            tensor.mul_(strength)
    type(pipe).save_lora_weights(str(file.parent), weight_name=file.name, **layers)
    return file


def _layers(
    pipe: DiffusionPipeline, rank: int, denoiser: list[str], text_encoder: bool
) -> dict[str, Tensors]:
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    layers: dict[str, Tensors] = {}
    if denoiser:
        layers[f"{part}_lora_layers"] = _random_lora(getattr(pipe, part), rank, denoiser)
    if text_encoder:
        layers["text_encoder_lora_layers"] = _random_lora(pipe.text_encoder, rank, TEXT_ENCODER)
    return layers


@torch.no_grad()
def _random_lora(model: torch.nn.Module, rank: int, targets: list[str]) -> Tensors:
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False, target_modules=targets)
    model.add_adapter(config)  # type: ignore[operator]  # both libraries' models have it
    return {key: torch.randn_like(tensor) * 0.3 for key, tensor in get_peft_model_state_dict(model).items()}


def changed(file: Path, to: Path, change: Callable[[Tensors], Mapping[str, torch.Tensor]]) -> Path:
    """A copy of the file with other tensors in it."""
    save_file(dict(change(load_file(file))), to)
    return to

"""LoRA files: read without running anything of them, and held against the model before it is touched.

Only plain LoRAs are taken, and only whole ones: each of its layers must be in the model, in the same shape.
diffusers loads what matches and drops the rest with a line in the log, and then the image is not what was
asked for. Refused for the same reason, or since diffusers would change the model itself for good: DoRA
(its scales are dropped), LoKr and control LoRAs (they swap or overwrite layers of the model).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError
from safetensors.torch import load_file

SUFFIX = ".safetensors"
Tensors = dict[str, torch.Tensor]

_PLAIN = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>[AB])\.weight$")
_FOREIGN_KINDS = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "lokr_": "LoKr", "hada_": "LoHa"}


class LoraNotUsable(Exception):
    """A LoRA can't be used with this model. The text is for clients: it names no path."""


def read(alias: str, path: Path) -> Tensors:
    """All tensors of a LoRA file, on the CPU. Raises LoraNotUsable if it is none, or a broken one."""
    if path.suffix != SUFFIX:
        raise LoraNotUsable(f"LoRA {alias}: only {SUFFIX} files are taken")
    try:
        tensors: Tensors = load_file(path, device="cpu")
    except FileNotFoundError as exc:
        raise LoraNotUsable(f"LoRA {alias}: its file is not there") from exc
    except (SafetensorError, OSError, ValueError, KeyError) as exc:
        raise LoraNotUsable(f"LoRA {alias}: its file is damaged, or of another format") from exc
    _refuse_other_kinds(alias, tensors)
    if not all(bool(tensor.float().isfinite().all()) for tensor in tensors.values()):
        raise LoraNotUsable(f"LoRA {alias}: some of its weights are not numbers")
    return tensors


def layers_that_fit(alias: str, pipe: DiffusionPipeline, tensors: Tensors) -> dict[str, int]:
    """How many tensors of the LoRA each component of the pipeline takes. The pipeline is not changed.

    Raises LoraNotUsable when anything of the LoRA has no place in the model.
    """
    parts = _by_component(alias, pipe, tensors)
    strays = sum(len(part) for name, part in parts.items() if name not in pipe._lora_loadable_modules)
    counts: dict[str, int] = {}
    misfits = strays
    for name, part in parts.items():
        if name in pipe._lora_loadable_modules:
            bad = _misfits(getattr(pipe, name), part)
            misfits += bad
            counts[name] = len(part) - bad
    if misfits:
        raise LoraNotUsable(_misfit_text(alias, misfits, sum(counts.values())))
    return counts


def _misfit_text(alias: str, misfits: int, fits: int) -> str:
    if not fits:
        return f"LoRA {alias}: it was made for another family of models"
    return f"LoRA {alias}: {misfits} of its {misfits + fits} weights have no place in this model"


def _refuse_other_kinds(alias: str, tensors: Tensors) -> None:
    if not tensors:
        raise LoraNotUsable(f"LoRA {alias}: its file is empty")
    for mark, kind in _FOREIGN_KINDS.items():
        if any(mark in key for key in tensors):
            raise LoraNotUsable(f"LoRA {alias}: it is a {kind}, and only plain LoRAs are taken")


def _by_component(alias: str, pipe: DiffusionPipeline, tensors: Tensors) -> dict[str, Tensors]:
    """The LoRA in today's names, by component of the pipeline."""
    # As its own `load_lora_weights` does: only SDXL's converter is told of the UNet.
    is_sdxl = hasattr(pipe, "unet") and hasattr(pipe, "text_encoder_2")
    hints = {"unet_config": pipe.unet.config} if is_sdxl else {}
    try:
        converted = pipe.lora_state_dict(dict(tensors), **hints)
        named = converted[0] if isinstance(converted, tuple) else converted
        split: dict[str, Tensors] = {}
        for key, tensor in named.items():
            component, _, rest = key.partition(".")
            split.setdefault(component, {})[rest] = tensor
        return {name: _in_peft_words(getattr(pipe, name, None), part) for name, part in split.items()}
    except Exception as exc:  # converters are made for known formats: for others they raise anything
        raise LoraNotUsable(f"LoRA {alias}: it was made for another family of models") from exc


def _in_peft_words(component: torch.nn.Module | None, part: Tensors) -> Tensors:
    if any("lora_A" in key for key in part) or component is None:
        return _without_text_model(component, part)
    if hasattr(component, "load_lora_adapter"):  # diffusers' own models
        return dict(convert_unet_state_dict_to_peft(part))
    return _without_text_model(component, convert_state_dict_to_peft(convert_state_dict_to_diffusers(part)))


def _without_text_model(component: torch.nn.Module | None, part: Tensors) -> Tensors:
    """Older LoRAs name a level that CLIP's text encoders no longer have."""
    if component is None or hasattr(component, "text_model") or hasattr(component, "load_lora_adapter"):
        return dict(part)
    return {key.removeprefix("text_model."): tensor for key, tensor in part.items()}


def _misfits(component: torch.nn.Module, part: Tensors) -> int:
    """How many of the tensors have no place in the component."""
    modules = dict(component.named_modules())
    halves: dict[str, Tensors] = {}
    bad = 0
    for key, tensor in part.items():
        match = _PLAIN.match(key)
        if match is None:
            bad += 1
        else:
            halves.setdefault(match["layer"], {})[match["half"]] = tensor
    return bad + sum(len(pair) for layer, pair in halves.items() if not _fits(modules.get(layer), pair))


def _fits(module: torch.nn.Module | None, pair: Mapping[str, torch.Tensor]) -> bool:
    bare = getattr(module, "base_layer", module)  # where another LoRA is on it
    weight = getattr(bare, "weight", None)
    if weight is None or set(pair) != {"A", "B"}:
        return False
    down, up = pair["A"], pair["B"]
    if not down.ndim == up.ndim == weight.ndim >= 2:
        return False
    return bool(
        down.shape[1:] == weight.shape[1:]
        and up.shape[0] == weight.shape[0]
        and 0 < down.shape[0] == up.shape[1]
    )


def rank(tensors: Tensors) -> int:
    """The highest rank of its layers: the smaller side of the widest pair."""
    return max((min(tensor.shape[:2]) for tensor in tensors.values() if tensor.ndim >= 2), default=0)

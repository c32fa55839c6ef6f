"""PEFT adapters of a pipeline: put in, checked, taken out. All that touches its modules is here."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict

from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.library_log import hushed
from gpu_worker.engines.diffusers.lora_files import LoraNotUsable


def load(pipe: DiffusionPipeline, alias: str, path: Path, name: str, counts: Mapping[str, int]) -> None:
    """Loads the file, of which each component takes so many tensors, as adapter `name`.

    Raises LoraNotUsable, or what is raised when memory is short; the pipeline is then as it was before.
    """
    try:
        read_into(pipe, path, name)
        _check(alias, pipe, name, counts)
    except BaseException as exc:
        remove(pipe, name)
        if isinstance(exc, LoraNotUsable) or memory.is_out_of_memory(exc) or not isinstance(exc, Exception):
            raise
        raise LoraNotUsable(f"LoRA {alias}: it can't be loaded into this model") from exc


def read_into(pipe: DiffusionPipeline, path: Path, name: str, *, hotswap: bool = False) -> None:
    """Has diffusers load the file, whose suffix and content were checked: it opens no pickle then."""
    offloaded = memory.is_offloaded(pipe)
    device = getattr(pipe, "_offload_device", None)
    try:
        with hushed():
            pipe.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=name,
                use_safetensors=True,
                local_files_only=True,
                hotswap=hotswap,
            )
    finally:
        if offloaded and device is not None:  # diffusers takes the hooks off, and when it fails, that's it
            memory.offload_on(pipe, device)
    for component in components(pipe).values():
        _as_the_model(component, name)


def remove(pipe: DiffusionPipeline, name: str) -> None:
    """Takes the adapter out, also one that was only half put in. With the last one, all wrapping goes too."""
    with hushed():
        pipe.delete_adapters(name)
    if not any(pipe.get_list_adapters().values()):
        pipe.unload_lora_weights()


def components(pipe: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    """Parts of the pipeline that LoRAs may change."""
    found = {name: getattr(pipe, name, None) for name in pipe._lora_loadable_modules}
    return {name: part for name, part in found.items() if isinstance(part, torch.nn.Module)}


def layers(component: torch.nn.Module, name: str) -> list[LoraLayer]:
    """The layers that the adapter changes."""
    return [part for part in component.modules() if isinstance(part, LoraLayer) and name in part.lora_A]


def _as_the_model(component: torch.nn.Module, name: str) -> None:
    """In the precision of the layer it sits on: another one would be cast in every step."""
    for layer in layers(component, name):
        weight = layer.base_layer.weight
        assert isinstance(weight, torch.Tensor)
        if weight.is_floating_point() and weight.element_size() > 1:  # fp8 is no precision to add up in
            layer.lora_A[name].to(dtype=weight.dtype)
            layer.lora_B[name].to(dtype=weight.dtype)


def _check(alias: str, pipe: DiffusionPipeline, name: str, counts: Mapping[str, int]) -> None:
    """diffusers may drop what it doesn't know, up to all of it, and say so in its log alone."""
    listed = {part for part, names in pipe.get_list_adapters().items() if name in names}
    expected = {part for part, count in counts.items() if count}
    if listed != expected:
        raise LoraNotUsable(f"LoRA {alias}: it can't be loaded into this model")
    for part, component in components(pipe).items():
        if part in listed and len(get_peft_model_state_dict(component, adapter_name=name)) != counts[part]:
            raise LoraNotUsable(f"LoRA {alias}: only a part of it can be loaded into this model")

"""The families of models that can be served: one file each, listed here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from contract.messages import JsonScalar
from gpu_worker.engines.diffusers.families.base import FamilyAdapter, MakeAdapter
from gpu_worker.engines.diffusers.families.flux import Flux
from gpu_worker.engines.diffusers.families.qwen_image import QwenImage
from gpu_worker.engines.diffusers.families.sana import Sana
from gpu_worker.engines.diffusers.families.sd3 import Sd3
from gpu_worker.engines.diffusers.families.sd15 import Sd15
from gpu_worker.engines.diffusers.families.sdxl import Sdxl
from gpu_worker.engines.diffusers.families.z_image import ZImage
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

FAMILIES: Final[Mapping[str, MakeAdapter]] = {
    "sd15": Sd15,
    "sdxl": Sdxl,
    "sd3": Sd3,
    "flux": Flux,
    "z-image": ZImage,
    "sana": Sana,
    "qwen-image": QwenImage,
}


@torch.inference_mode(mode=False)  # else its weights could be used in inference mode only
def load(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype,
    variant: str | None = None,
    scheduler_options: Mapping[str, JsonScalar] | None = None,
) -> FamilyAdapter:
    """The model in the folder, on the CPU. Opens safetensors only, runs no code of it, asks no hub.

    `weights.inspect` says whether the folder is a model of this family: look there first. What diffusers
    raises (OSError, ValueError, ...) when it can't be loaded all the same is not translated.
    """
    quiet()
    facts = FAMILY_FACTS[family]
    pipe = getattr(diffusers, facts.pipelines["text-to-image"]).from_pretrained(
        folder,
        dtype=dtype,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **dict.fromkeys(facts.unused),
        **({"requires_safety_checker": False} if "safety_checker" in facts.unused else {}),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **(scheduler_options or {}))
    return FAMILIES[family](pipe)


def quiet() -> None:
    """No bars in the log, and no warnings: some tell the end of a prompt, which is the user's alone."""
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()

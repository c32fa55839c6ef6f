"""What is known of each family without torch: for the catalog, the card and the checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from contract.messages import Task

# Names that requests and catalogs use for schedulers, by what the model was trained to predict.
NOISE_SCHEDULERS: Final = (
    "ddim", "ddpm", "dpmpp-2m", "dpmpp-2m-karras", "dpmpp-2m-sde", "dpmpp-2m-sde-karras", "euler",
    "euler-a", "heun", "lcm", "pndm", "unipc",
)  # fmt: skip
FLOW_SCHEDULERS: Final = ("flow-euler",)


@dataclass(frozen=True)
class FamilyFacts:
    """One family of models."""

    pipelines: Mapping[Task, str]  # names of the diffusers classes; a task that is absent can't be done
    size_multiple: int  # pixels, each side
    schedulers: tuple[str, ...]
    can_negative_prompt: bool  # where guidance is strong enough to run the model twice
    pads_to_neighbours: bool = False  # prompts are as long as the batch's longest: alone where bits matter
    unused: frozenset[str] = (
        frozenset()
    )  # components of published folders that are neither loaded nor fetched


def _tasks(text: str, image: str | None = None, inpainting: str | None = None) -> Mapping[Task, str]:
    names: dict[Task, str | None] = {"text-to-image": text, "image-to-image": image, "inpainting": inpainting}
    return {task: name for task, name in names.items() if name}


FAMILY_FACTS: Final[Mapping[str, FamilyFacts]] = {
    "sd15": FamilyFacts(
        _tasks("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        size_multiple=8,
        schedulers=NOISE_SCHEDULERS,
        can_negative_prompt=True,
        unused=frozenset({"safety_checker", "feature_extractor", "image_encoder"}),
    ),
    "sdxl": FamilyFacts(
        _tasks(
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
        ),
        size_multiple=8,
        schedulers=NOISE_SCHEDULERS,
        can_negative_prompt=True,
        unused=frozenset({"feature_extractor", "image_encoder"}),
    ),
    "sd3": FamilyFacts(
        _tasks(
            "StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"
        ),
        size_multiple=16,
        schedulers=FLOW_SCHEDULERS,
        can_negative_prompt=True,
        unused=frozenset({"feature_extractor", "image_encoder"}),
    ),
    "flux": FamilyFacts(
        _tasks("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        size_multiple=16,
        schedulers=FLOW_SCHEDULERS,
        can_negative_prompt=False,
        unused=frozenset({"feature_extractor", "image_encoder"}),
    ),
    "z-image": FamilyFacts(
        _tasks("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
        size_multiple=16,
        schedulers=FLOW_SCHEDULERS,
        can_negative_prompt=True,
        pads_to_neighbours=True,
    ),
    "sana": FamilyFacts(
        _tasks("SanaPipeline"), size_multiple=32, schedulers=FLOW_SCHEDULERS, can_negative_prompt=True
    ),
    "qwen-image": FamilyFacts(
        _tasks("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
        size_multiple=16,
        schedulers=FLOW_SCHEDULERS,
        can_negative_prompt=True,
        pads_to_neighbours=True,
    ),
}

"""What a family of models is to the engine: prompts to embeddings, embeddings to latents, latents to pixels.

A family adapter holds one loaded pipeline. It knows what differs between the families and nothing of
batches' origin, of LoRAs, memory or cancelling: the engine, which calls it from its one thread, does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from contract.messages import Task

# A tensor with a leading dimension of 1, or, where a family takes lists, a list with one tensor.
Embedding = torch.Tensor | list[torch.Tensor]


@dataclass(frozen=True)
class Embeddings:
    """One prompt, encoded alone: what `denoise` takes of it, by the name of the pipeline's argument."""

    tensors: Mapping[str, Embedding]
    truncated: bool = False  # the prompt is longer than what the model reads

    def bytes(self) -> int:
        """How much memory they take."""
        flat = (one for many in self.tensors.values() for one in (many if isinstance(many, list) else [many]))
        return sum(tensor.numel() * tensor.element_size() for tensor in flat)


@dataclass(frozen=True)
class Row:
    """One image of a batch."""

    embeddings: Embeddings
    generator: torch.Generator  # fresh, on the CPU: its state is consumed
    reference: Image.Image | None = None  # RGB, of the run's size
    mask: Image.Image | None = None  # L, of the run's size


@dataclass(frozen=True)
class Run:
    """What all images of a batch have in common."""

    task: Task
    width: int  # pixels
    height: int  # pixels
    steps: int
    guidance: float
    strength: float | None = None  # of image-to-image and inpainting
    scheduler: str | None = None  # a name from `schedulers`; None: the pipeline's own


# (step from 0, how many steps there are in fact, latents as the pipeline holds them). What it raises ends
# the denoising at once.
OnStep = Callable[[int, int, torch.Tensor], None]


class FamilyAdapter(Protocol):
    """One loaded pipeline of a family. All methods run under `torch.inference_mode`, in one thread."""

    family: ClassVar[str]  # as in the catalog: sd15, sdxl, sd3, flux, z-image, ...
    pipelines: ClassVar[Mapping[Task, str]]  # names of the diffusers classes; one absent can't be done
    size_multiple: ClassVar[int]  # pixels, each side
    pipe: DiffusionPipeline  # the text-to-image pipeline; the others share its modules

    def uses_cfg(self, guidance: float) -> bool:
        """Whether this guidance makes the model run twice per step (and negative prompts work)."""
        ...

    def encode(self, prompt: str, negative_prompt: str | None, *, cfg: bool) -> Embeddings:
        """Encodes one prompt, alone: so an embedding doesn't depend on its neighbours."""
        ...

    def denoise(self, run: Run, rows: Sequence[Row], on_step: OnStep) -> torch.Tensor:
        """Latents of all rows, (B, ...), as `decode` takes them. Leaves nothing behind in the pipeline."""
        ...

    def decode(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        """Latents (B, ...) -> pixels, uint8 (B, height, width, 3), on the device."""
        ...

    def spatial(self, latents: torch.Tensor, run: Run) -> torch.Tensor:
        """The same latents as a picture: (B, channels, height / f, width / f). For previews."""
        ...

    def denoiser(self) -> torch.nn.Module:
        """The module that runs in every step: what is compiled, and what LoRAs change."""
        ...


# What a family's file offers to the registry in `families/__init__.py`.
MakeAdapter = Callable[[DiffusionPipeline], FamilyAdapter]
Arguments = dict[str, Any]  # of a pipeline's call

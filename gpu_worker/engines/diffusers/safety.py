"""The safety checker: an image classifier that looks at each image, and what is done about what it finds.

When the checker itself fails, nothing gets past it that should have been looked at: where images are to be
blurred or refused, the image fails (and may be tried again); where they are only flagged, it says so.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import torch
from PIL import Image, ImageFilter
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from contract.messages import FailureCode
from gpu_worker.engines.base import Failure
from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.catalog import SafetyMode

logger = logging.getLogger(__name__)


BLURRED_TO: Final = 6  # pixels on the longer side: all that is left of a blurred image, whatever its size

REFUSED: Final = Failure(
    FailureCode.CONTENT_REFUSED, "the safety checker of this model refused the image", retryable=False
)
UNCHECKED: Final = Failure(
    FailureCode.ENGINE_FAILED,
    "the safety checker of this model failed, so the image is held back",
    retryable=True,
)


class CheckerNotUsable(Exception):
    """The folder holds no classifier that can be used as a safety checker. The text is for operators."""


@dataclass(frozen=True)
class Verdict:
    """What the classifier holds an image for."""

    unsafe: bool
    label: str  # if unsafe: the most likely one of the unsafe labels; else the most likely one of all
    score: float  # 0 to 1: how likely it is unsafe


class SafetyChecker:
    """A classifier of images, of any architecture that transformers has."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: BaseImageProcessor,
        labels: Mapping[int, str],
        unsafe: Sequence[int],
        threshold: float,
    ) -> None:
        self._model = model
        self._processor = processor
        self._labels = labels
        self._unsafe = list(unsafe)
        self._threshold = threshold

    @classmethod
    def load(
        cls,
        folder: Path,
        unsafe_labels: Sequence[str],
        threshold: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        """Reads the classifier: safetensors alone, nothing from the network, no code of the folder's.

        `unsafe_labels` are names of its labels, in any case; images are unsafe when the sum of their
        probabilities (where labels exclude each other not: the highest) reaches `threshold`. Raises
        CheckerNotUsable.
        """
        model, processor = _open(folder)
        labels: dict[int, str] = dict(model.config.id2label)
        unsafe = _numbers(labels, unsafe_labels)
        model.to(device=device, dtype=dtype).eval().requires_grad_(requires_grad=False)
        return cls(model, processor, labels, unsafe, threshold)

    @torch.inference_mode()
    def check(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict for each image, in order. Each is looked at alone: neighbours change nothing.

        Raises ValueError when the classifier doesn't come to numbers.
        """
        return [self._look_at(image) for image in images]

    def to(self, device: torch.device) -> None:
        """Moves the classifier."""
        self._model.to(device)

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return torch.device(self._model.device)

    def _look_at(self, image: Image.Image) -> Verdict:
        inputs = self._processor(images=image.convert("RGB"), return_tensors="pt")
        pixels = inputs["pixel_values"].to(device=self._model.device, dtype=self._model.dtype)
        logits = self._model(pixel_values=pixels).logits[0].float().cpu()
        if not logits.isfinite().all():
            raise ValueError("the safety checker gave no numbers")
        return self._verdict(logits)

    def _verdict(self, logits: torch.Tensor) -> Verdict:
        overlapping = self._model.config.problem_type == "multi_label_classification"
        likely = logits.sigmoid() if overlapping else logits.softmax(dim=0)
        of_unsafe = likely[self._unsafe]
        score = min(1.0, float(of_unsafe.max() if overlapping else of_unsafe.sum()))
        unsafe = score >= self._threshold
        number = self._unsafe[int(of_unsafe.argmax())] if unsafe else int(likely.argmax())
        return Verdict(unsafe, self._labels[number], score)


@dataclass(frozen=True)
class SafetyGuard:
    """What the catalog wants to be done about unsafe images."""

    checker: SafetyChecker
    mode: SafetyMode

    def judge(self, image: Image.Image) -> tuple[Image.Image, str] | Failure:
        """The image as it may be shown, and a word for its record (as `apply` gives); or why it may not.

        Never raises: a checker that fails lets nothing past.
        """
        verdict, failure = self._verdict(image)
        if failure is not None and memory.is_out_of_memory(failure):
            memory.clear(failure, self.checker.device)
            verdict, failure = self._verdict(image)
        if failure is not None:
            logger.warning("The safety checker failed: %s", type(failure).__name__, exc_info=failure)
        return apply(self.mode, image, verdict)

    def _verdict(self, image: Image.Image) -> tuple[Verdict | None, Exception | None]:
        try:
            return self.checker.check([image])[0], None
        except Exception as exc:  # noqa: BLE001 - whatever it is: the image was not looked at
            return None, exc


def apply(mode: SafetyMode, image: Image.Image, verdict: Verdict | None) -> tuple[Image.Image, str] | Failure:
    """What becomes of the image. No verdict: the checker failed. The word is passed, flagged, blurred,
    unchecked (it was to be flagged, and the checker failed) or off."""
    if mode == "off":
        return image, "off"
    if verdict is None:
        return (image, "unchecked") if mode == "flag" else UNCHECKED
    if not verdict.unsafe:
        return image, "passed"
    if mode == "refuse":
        return REFUSED
    return (blurred(image), "blurred") if mode == "blur" else (image, "flagged")


def may_preview(mode: SafetyMode) -> bool:
    """Whether unfinished images may be shown: nothing has looked at them."""
    return mode in ("off", "flag")


def blurred(image: Image.Image) -> Image.Image:
    """A picture of the same size that has nothing of the image but a few colours."""
    width, height = image.size
    longer = max(width, height)
    few = (max(1, round(width * BLURRED_TO / longer)), max(1, round(height * BLURRED_TO / longer)))
    colours = image.convert("RGB").resize(few, Image.Resampling.BOX)
    soft = colours.resize(image.size, Image.Resampling.BICUBIC)
    return soft.filter(ImageFilter.GaussianBlur(longer / BLURRED_TO / 2))


# -- reading ------------------------------------------------------------------------------------------


def _open(folder: Path) -> tuple[PreTrainedModel, BaseImageProcessor]:
    if not folder.is_dir():
        raise CheckerNotUsable(f"{folder}: no such folder")
    try:
        model, told = AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",  # a configuration may name kernels of the hub
            output_loading_info=True,
        )
        processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except Exception as exc:  # it is the folder's content that decides what is raised
        raise CheckerNotUsable(f"{folder}: no image classifier with safetensors ({exc})") from exc
    if told["missing_keys"]:  # it would judge by random weights
        raise CheckerNotUsable(f"{folder}: its file lacks weights, such as {min(told['missing_keys'])}")
    return model, processor


def _numbers(labels: Mapping[int, str], unsafe: Sequence[str]) -> list[int]:
    by_name = {name.casefold(): number for number, name in labels.items()}
    unknown = [name for name in unsafe if name.casefold() not in by_name]
    if unknown or not unsafe:
        known = ", ".join(labels.values())
        raise CheckerNotUsable(f"unsafe_labels: {', '.join(unknown) or 'none'}; the classifier has {known}")
    return sorted({by_name[name.casefold()] for name in unsafe})

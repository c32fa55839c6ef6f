"""One batch on one loaded model: prompts to embeddings, to latents, to pixels, watched at every step."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageOps

from contract.messages import FailureCode
from gpu_worker.engines.base import CANCELED, Failure, ImageRequest, Spent, Watch
from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.catalog import ModelEntry
from gpu_worker.engines.diffusers.embed_cache import EmbedCache
from gpu_worker.engines.diffusers.families.base import Embeddings, Row, Run
from gpu_worker.engines.diffusers.ladder import Ladder
from gpu_worker.engines.diffusers.pace import Pace
from gpu_worker.engines.diffusers.residency import Resident
from gpu_worker.engines.diffusers.safety import may_preview

logger = logging.getLogger(__name__)

PREVIEW_EVERY_S = 0.3
DECODE_ALONE_FROM = 512 * 512  # pixels: from here on decoding several at once gains nothing, and takes memory

NOT_A_NUMBER = Failure(
    FailureCode.ENGINE_FAILED, "The model's arithmetic overflowed: there is no image.", retryable=True
)
NOT_ENCODED = Failure(FailureCode.ENGINE_FAILED, "The prompt could not be encoded.", retryable=True)


class NobodyWaits(Exception):
    """All images of the batch were canceled."""


@dataclass(frozen=True)
class Made:
    """An image, and how it came about."""

    image: Image.Image
    truncated: bool  # the prompt
    batch: int  # images that were denoised together, with those that only fill up
    ladder: tuple[str, ...]
    spent: Spent


class Making:
    """Makes the images of one batch: `parts` is called with as many of them as memory allows."""

    def __init__(self, resident: Resident, run: Run, cache: EmbedCache, watch: Watch, pace: Pace) -> None:
        self._resident = resident
        self._adapter = resident.adapter
        self._run = run
        self._cache = cache
        self._watch = watch
        self._pace = pace
        self._preview_due = 0.0
        self.doing = ""

    def part(self, requests: Sequence[ImageRequest], ladder: Ladder) -> list[Made | Failure]:
        """One outcome for each request, in order. Raises out-of-memory errors, and what a model raises."""
        begun = time.monotonic()
        rows = [self._row(request) for request in requests]
        encoded = time.monotonic()
        good = [(place, row) for place, row in enumerate(rows) if isinstance(row, Row)]
        outcomes: list[Made | Failure] = [row if isinstance(row, Failure) else CANCELED for row in rows]
        if not good:
            return outcomes
        chosen = [requests[place] for place, _ in good]
        try:
            latents, batch = self._denoise(chosen, [row for _, row in good])
            finite = torch.isfinite(latents.flatten(1)).all(dim=1).tolist()  # waits for the device
        except NobodyWaits:
            return [outcome if isinstance(outcome, Failure) else CANCELED for outcome in outcomes]
        denoised = time.monotonic()
        wanted = [number for number, request in enumerate(chosen) if not self._watch.canceled(request.id)]
        images = self._decode(latents, [number for number in wanted if finite[number]], ladder)
        spent = Spent(
            encode_s=encoded - begun, denoise_s=denoised - encoded, decode_s=time.monotonic() - denoised
        )
        for number in wanted:
            place, row = good[number]
            image = images.get(number)
            outcomes[place] = (
                Made(_with_what_was_kept(image, row), row.embeddings.truncated, batch, ladder.taken, spent)
                if image
                else NOT_A_NUMBER
            )
        return outcomes

    # -- prompts --------------------------------------------------------------------------------------

    def _row(self, request: ImageRequest) -> Row | Failure:
        if self._watch.canceled(request.id):
            return CANCELED
        try:
            embeddings = self._embeddings(request)
        except (ValueError, TypeError, KeyError, IndexError):  # a tokenizer's; its neighbours are not touched
            logger.exception("A prompt could not be encoded")
            return NOT_ENCODED
        size = (self._run.width, self._run.height)
        return Row(
            embeddings,
            torch.Generator().manual_seed(request.seed),  # of each attempt: its state is consumed
            reference=_fitted(request.reference, size),
            mask=_fitted(request.mask, size),
        )

    def _embeddings(self, request: ImageRequest) -> Embeddings:
        entry = self._resident.entry
        cfg = self._adapter.uses_cfg(self._run.guidance)
        negative = request.negative_prompt if entry.takes_negative_prompt else None
        texts = (request.prompt, negative, cfg)
        key = (entry.alias, entry.revision, *texts, self._resident.loras.text_key(), request.reproducible)
        return self._cache.get(key, lambda: self._adapter.encode(request.prompt, negative, cfg=cfg))

    # -- latents --------------------------------------------------------------------------------------

    def _denoise(self, requests: Sequence[ImageRequest], rows: list[Row]) -> tuple[torch.Tensor, int]:
        """Latents of the rows, and how many were made at once, with those that only fill up a batch."""
        padded = [*rows, *self._padding(requests[0], rows[0], len(rows))]
        self._pace.begin()

        def on_step(step: int, steps: int, latents: torch.Tensor) -> None:
            self._pace.step()
            self.doing = f"step {step + 1} of {steps}"
            for request in requests:
                self._watch.progress(request.id, (step + 1) / (steps + 1))
            if all(self._watch.canceled(request.id) for request in requests):
                raise NobodyWaits
            self._show(requests, latents)

        latents = self._adapter.denoise(self._run, padded, on_step)
        return latents[: len(rows)], len(padded)

    def _padding(self, request: ImageRequest, row: Row, count: int) -> list[Row]:
        """Bit for bit the same is only what is made in batches of one size. What fills up is thrown away."""
        if not request.reproducible:
            return []
        missing = strict_batch(self._resident.entry) - count
        return [replace(row, generator=torch.Generator().manual_seed(number)) for number in range(missing)]

    def _show(self, requests: Sequence[ImageRequest], latents: torch.Tensor) -> None:
        """Previews, for those who asked; not so often that they would hold up the work."""
        preview, now = self._resident.preview, time.monotonic()
        if not may_preview(self._resident.entry.safety.mode):
            return
        wanted = [number for number, request in enumerate(requests) if request.preview]
        if not wanted or not preview.ready or now < self._preview_due:
            return
        self._preview_due = now + PREVIEW_EVERY_S
        spatial = self._adapter.spatial(latents, self._run)
        for number in wanted:
            self._watch.preview(requests[number].id, preview.jpeg(spatial[number]))

    # -- pixels ---------------------------------------------------------------------------------------

    def _decode(
        self, latents: torch.Tensor, numbers: Sequence[int], ladder: Ladder
    ) -> dict[int, Image.Image]:
        """The images of these rows, by row."""
        self.doing = "decoding"
        alone = ladder.rungs.bit_for_bit or self._run.width * self._run.height >= DECODE_ALONE_FROM
        size = 1 if alone else max(len(numbers), 1)
        images: dict[int, Image.Image] = {}
        for start in range(0, len(numbers), size):
            part = list(numbers[start : start + size])
            pixels = self._pixels(latents[part], ladder)
            self._learn_previews(latents[part[0]], pixels[0])
            for number, array in zip(part, pixels.cpu().numpy(), strict=True):
                images[number] = Image.fromarray(array)
        return images

    def _pixels(self, latents: torch.Tensor, ladder: Ladder) -> torch.Tensor:
        """Decodes; where memory is short, once more tile by tile, without denoising all anew."""
        failure = None
        try:
            return self._adapter.decode(latents, self._run)
        except Exception as exc:
            exact = ladder.rungs.bit_for_bit or ladder.tiles or not ladder.rungs.can_tile
            if exact or not memory.is_out_of_memory(exc):
                raise
            failure = exc
        memory.clear(failure, ladder.device)
        ladder.taken, ladder.tiles = (*ladder.taken, "tiling"), True
        with ladder.rungs.tiled():
            return self._adapter.decode(latents, self._run)

    def _learn_previews(self, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        preview = self._resident.preview
        if not preview.ready:
            preview.fit(self._adapter.spatial(latents[None], self._run)[0], pixels)


def _with_what_was_kept(image: Image.Image, row: Row) -> Image.Image:
    """Where the mask is black, the reference itself: through the latents it would come back changed."""
    if row.mask is None or row.reference is None:
        return image
    return Image.composite(image, row.reference, row.mask)


def strict_batch(entry: ModelEntry) -> int:
    """How many images are made at once where they are to be the same bit for bit."""
    return 1 if entry.facts.pads_to_neighbours else entry.strict_batch


def _fitted(image: Image.Image | None, size: tuple[int, int]) -> Image.Image | None:
    """Of the run's size: scaled to cover it, and cut around the middle."""
    return None if image is None else ImageOps.fit(image, size, Image.Resampling.LANCZOS)

"""The engine: takes batches, finds their model, makes them, and says of each image how it was made."""

import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from contract.messages import Device, FailureCode, ModelCard, Task
from gpu_worker.engines.base import EngineState, Failure, ImageRequest, Outcome, Picture, Watch
from gpu_worker.engines.diffusers import memory
from gpu_worker.engines.diffusers.catalog import ENGINE_NAME, ModelEntry, card_of
from gpu_worker.engines.diffusers.device_errors import raise_if_device_is_lost
from gpu_worker.engines.diffusers.embed_cache import EmbedCache
from gpu_worker.engines.diffusers.families.base import Run
from gpu_worker.engines.diffusers.ladder import Ladder, Rungs, made_in_parts
from gpu_worker.engines.diffusers.loras import LoraNotUsable, Wanted
from gpu_worker.engines.diffusers.making import Made, Making, strict_batch
from gpu_worker.engines.diffusers.not_made import NotMade
from gpu_worker.engines.diffusers.pace import Pace
from gpu_worker.engines.diffusers.readiness import Readiness
from gpu_worker.engines.diffusers.record import record
from gpu_worker.engines.diffusers.residency import Residency, Resident
from gpu_worker.engines.diffusers.speed import bit_for_bit

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 64
AT_ONCE_UNTRIED = 4  # before a model's first use has shown what pays

OUT_OF_MEMORY = Failure(
    FailureCode.OUT_OF_MEMORY, "The node has too little memory for this image.", retryable=True
)
OTHER_REVISION = Failure(
    FailureCode.MODEL_NOT_AVAILABLE, "The node has another revision of this model.", retryable=True
)


class Shelf(Protocol):
    """Where the models come from."""

    def find(self, alias: str) -> Path:
        """The folder of a model, examined. Raises `NotMade`. From any thread."""
        ...

    def load(self, alias: str, folder: Path) -> Resident:
        """The model, in the machine's memory. Raises `NotMade`, or an out-of-memory error."""
        ...

    def settle(self, resident: Resident) -> None:
        """Once it is on the device for the first time: makes it fast, finds how many at once pay."""
        ...

    def lora(self, entry: ModelEntry, alias: str) -> Path:
        """The file of a LoRA, examined. Raises `NotMade`."""
        ...


@dataclass(frozen=True)
class Key:
    """What the images of a batch have in common."""

    model: str
    task: Task
    width: int  # pixels
    height: int  # pixels
    steps: int
    guidance: float
    strength: float | None
    scheduler: str | None
    loras: tuple[tuple[str, float], ...]
    has_negative: bool
    bit_for_bit: bool


class DiffusersEngine:
    """Runs diffusers pipelines on one device.

    The same request gives the same pixels on the same device and libraries, whatever ran before it; what
    ran beside it may change the last bit, but for requests with `reproducible`.
    """

    name = ENGINE_NAME

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        shelf: Shelf,
        device: Device,
        torch_device: torch.device,
        *,
        budget: int | None = None,
    ) -> None:
        """`budget`: bytes of weights that may be on the device at once; None: nearly all that it has."""
        self.device = device
        self._torch_device = torch_device
        self._entries: Mapping[str, ModelEntry] = {entry.alias: entry for entry in entries}
        self._cards = tuple(map(card_of, entries))
        self._shelf = shelf
        self._cache = EmbedCache()
        self._pace = Pace(torch_device)
        self._readiness = Readiness(shelf.find)
        self._readiness.start()
        self._residency = Residency(torch_device, self._load, budget=budget)
        self._at_once: dict[str, int] = {}  # by model, at its own size
        self._fits: dict[tuple[str, int, int], int] = {}  # by model and size: learned from running out
        self._doing: str | None = None
        self._loading: str | None = None
        self._making: Making | None = None

    # -- what is asked from any thread ----------------------------------------------------------------

    def models(self) -> Sequence[ModelCard]:
        """The cards of the catalog's entries that this node serves."""
        return self._cards

    def state(self) -> EngineState:
        """What is loaded, and what is going on."""
        making, doing, loading = self._making, self._doing, self._loading
        if doing and making and making.doing:
            doing = f"{doing}, {making.doing}"
        return EngineState(
            loaded=self._residency.loaded(),
            loading=tuple(dict.fromkeys([*([loading] if loading else []), *self._readiness.at_work()])),
            doing=doing,
            memory_used_bytes=memory.used_bytes(self._torch_device),
        )

    def prepare(self, model: str) -> bool:
        """True once a load takes no longer than it must."""
        here = (*self._residency.loaded(), *self._residency.parked())
        return model in here or model not in self._entries or self._readiness.prepare(model)

    def batch_key(self, request: ImageRequest) -> Hashable:
        """Equal for what the pipeline can make in one call."""
        entry = self._entries[request.model]
        defaults = entry.defaults
        strength = None if request.task == "text-to-image" else request.strength or defaults.strength
        return Key(
            model=request.model,
            task=request.task,
            width=request.width,
            height=request.height,
            steps=defaults.steps if request.steps is None else request.steps,
            guidance=defaults.guidance if request.guidance is None else request.guidance,
            strength=strength,
            scheduler=request.scheduler or defaults.scheduler,
            loras=tuple(sorted((use.name, use.weight) for use in request.loras)),
            has_negative=request.negative_prompt is not None and entry.takes_negative_prompt,
            bit_for_bit=request.reproducible,
        )

    def max_batch(self, key: Hashable) -> int:
        """The catalog's number, or what pays; less for larger images, and where memory has run out before."""
        assert isinstance(key, Key)
        entry = self._entries[key.model]
        if key.bit_for_bit:
            return strict_batch(entry)
        fits = self._fits.get((key.model, key.width, key.height), MOST_AT_ONCE)
        if isinstance(entry.limits.batch, int):
            return min(entry.limits.batch, fits)
        own = self._at_once.get(key.model, AT_ONCE_UNTRIED)
        scale = entry.defaults.width * entry.defaults.height / (key.width * key.height)
        return max(1, min(round(own * scale), fits, MOST_AT_ONCE))

    # -- the engine's thread --------------------------------------------------------------------------

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        """One outcome for each request. What memory can't hold at once is made in parts."""
        key = self.batch_key(batch[0])
        assert isinstance(key, Key)
        size = f"{key.width}x{key.height}"
        self._doing = f"{key.model}: {len(batch)} {'image' if len(batch) == 1 else 'images'} {size}"
        failure = None
        try:
            return self._generate(batch, key, watch)
        except NotMade as exc:
            return [exc.failure] * len(batch)
        except Exception as exc:
            raise_if_device_is_lost(exc)
            if not memory.is_out_of_memory(exc):
                raise
            failure = exc
        finally:
            self._doing = self._making = None
        memory.clear(failure, self._torch_device)  # of a LoRA, mostly: images themselves have a ladder
        self._residency.evict_others(key.model)
        return [OUT_OF_MEMORY] * len(batch)

    def close(self) -> None:
        """Gives the device back."""
        self._readiness.stop()
        self._cache.clear()
        self._residency.clear()

    def _generate(self, batch: Sequence[ImageRequest], key: Key, watch: Watch) -> list[Outcome]:
        begun = time.monotonic()
        resident = self._resident(key.model)
        if any(request.revision not in (None, resident.entry.revision) for request in batch):
            return [OTHER_REVISION] * len(batch)
        used = self._use_loras(resident, key)
        load_s = time.monotonic() - begun
        run = Run(key.task, key.width, key.height, key.steps, key.guidance, key.strength, key.scheduler)
        making = self._making = Making(resident, run, self._cache, watch, self._pace)
        ladder = Ladder(self._rungs(resident, key), len(batch), self._torch_device)
        try:
            with torch.inference_mode(), bit_for_bit() if key.bit_for_bit else nullcontext():
                made = made_in_parts(batch, ladder, making.part, lost=OUT_OF_MEMORY)
        finally:
            self._learn(key, ladder)
        return [
            self._outcome(request, one, resident, run, used, load_s)
            for request, one in zip(batch, made, strict=True)
        ]

    def _outcome(
        self,
        request: ImageRequest,
        made: Made | Failure,
        resident: Resident,
        run: Run,
        loras: tuple[tuple[str, float], ...],
        load_s: float,
    ) -> Outcome:
        if isinstance(made, Failure):
            return made
        image, safety = made.image, None
        if resident.guard is not None:
            judged = resident.guard.judge(image)
            if isinstance(judged, Failure):
                return judged
            image, safety = judged
        made_with = record(request, run, made, resident, self.device, loras, safety)
        spent = made.spent if load_s < 0.001 else replace(made.spent, load_s=load_s)
        return Picture(image, made_with, spent)

    # -- models ---------------------------------------------------------------------------------------

    def _resident(self, alias: str) -> Resident:
        for turn in (1, 2):
            failure = None
            try:
                self._loading = None if alias in self._residency.loaded() else alias
                resident = self._residency.take(alias)
                if not resident.settled:
                    self._shelf.settle(resident)
                    resident.settled = True
                    self._at_once[alias] = resident.batch
            except Exception as exc:
                if not memory.is_out_of_memory(exc):
                    raise
                failure = exc
            else:
                return resident
            finally:
                self._loading = None
            memory.clear(failure, self._torch_device)
            logger.warning("Out of memory while the model %s was loaded, turn %d", alias, turn)
            self._residency.drop(alias)
            self._residency.evict_others(alias)
        raise NotMade(OUT_OF_MEMORY)

    def _load(self, alias: str) -> Resident:
        return self._shelf.load(alias, self._readiness.folder(alias))

    def _use_loras(self, resident: Resident, key: Key) -> tuple[tuple[str, float], ...]:
        entry = resident.entry
        always = [(name, entry.loras[name].default_weight) for name in entry.loras_always]
        wanted: list[Wanted] = [
            (name, self._shelf.lora(entry, name), weight) for name, weight in [*always, *key.loras]
        ]
        try:
            return resident.loras.use(wanted)
        except LoraNotUsable as exc:
            logger.warning("LoRAs of %s: %s", key.model, exc)
            raise NotMade(Failure(FailureCode.LORA_NOT_USABLE, str(exc)[:500], retryable=False)) from exc

    # -- memory ---------------------------------------------------------------------------------------

    def _rungs(self, resident: Resident, key: Key) -> Rungs:
        def evict_others() -> bool:
            self._cache.clear()
            return self._residency.evict_others(key.model)

        pipe = resident.adapter.pipe
        return Rungs(
            evict_others=evict_others,
            offload=lambda: self._residency.offload(resident),
            can_tile=memory.can_tile(pipe),
            tiled=lambda: memory.tiled_vae(pipe),
            bit_for_bit=key.bit_for_bit,
        )

    def _learn(self, key: Key, ladder: Ladder) -> None:
        """The next batch of this size is not begun larger than what has fitted."""
        if any(rung.startswith("batch") for rung in ladder.taken):
            self._fits[key.model, key.width, key.height] = ladder.at_once
            logger.warning("%s at %dx%d: %d at once fit", key.model, key.width, key.height, ladder.at_once)

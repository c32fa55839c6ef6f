"""Takes models from the machine's disk: found, examined, loaded, and made fast."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from contract.messages import FailureCode
from gpu_worker.engines.base import Failure
from gpu_worker.engines.diffusers import families, hub, memory, speed, weights
from gpu_worker.engines.diffusers.attention import UnknownAttention
from gpu_worker.engines.diffusers.batch_size import Trials, sweep
from gpu_worker.engines.diffusers.catalog import ModelEntry
from gpu_worker.engines.diffusers.families.base import Run
from gpu_worker.engines.diffusers.hub import NotDownloaded
from gpu_worker.engines.diffusers.loras import Loras
from gpu_worker.engines.diffusers.not_made import NotMade
from gpu_worker.engines.diffusers.residency import Resident
from gpu_worker.engines.diffusers.safety import CheckerNotUsable, SafetyChecker, SafetyGuard
from gpu_worker.engines.diffusers.speed import NotPossibleHere

logger = logging.getLogger(__name__)

NOT_DOWNLOADED = Failure(
    FailureCode.MODEL_NOT_AVAILABLE, "The node doesn't have the model's files.", retryable=True
)
MODEL_NOT_USABLE = Failure(
    FailureCode.MODEL_NOT_USABLE, "The model's files are not what the node loads.", retryable=False
)
CHECKER_NOT_USABLE = Failure(
    FailureCode.MODEL_NOT_USABLE, "The node can't load the model's safety checker.", retryable=False
)
LORA_NOT_USABLE = Failure(
    FailureCode.LORA_NOT_USABLE, "The LoRA's file is not what the node loads.", retryable=False
)

SWEEP_S = 8.0  # for finding out how many images at once pay; the first image waits for it

Fetch = Callable[[ModelEntry], None]  # downloads what an entry needs; raises whatever is wrong


class Loader:
    """The shelf of a node: a catalog's entries, a cache of downloads, and, where that is allowed, the hub."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        cache: Path,
        device: torch.device,
        *,
        fetch: Fetch | None = None,
    ) -> None:
        self._entries: Mapping[str, ModelEntry] = {entry.alias: entry for entry in entries}
        self._cache = cache
        self._device = device
        self._fetch = fetch
        self._good_loras: set[Path] = set()

    def find(self, alias: str) -> Path:
        """The folder of a model, examined; downloaded before, where that is allowed."""
        entry = self._entries[alias]
        try:
            folder = self._folder(entry)
            weights.inspect(folder, entry.family, entry.variant)
        except weights.UnusableModel as exc:
            logger.warning("The model %s is not loaded: %s", alias, exc)
            raise NotMade(MODEL_NOT_USABLE) from exc
        return folder

    def load(self, alias: str, folder: Path) -> Resident:
        """The model, in the machine's memory."""
        entry = self._entries[alias]
        dtype = speed.dtype_of(entry.dtype, self._device)
        try:
            adapter = families.load(
                folder,
                entry.family,
                dtype=dtype,
                variant=entry.variant,
                scheduler_options=entry.scheduler_options,
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
            ImportError,
            SafetensorError,
        ) as exc:
            if memory.is_out_of_memory(exc):
                raise
            logger.exception("The model %s could not be loaded", alias)
            raise NotMade(MODEL_NOT_USABLE) from exc
        logger.info("The model %s is loaded", alias)
        return Resident(
            guard=self._guard(entry, dtype),
            entry=hub.as_served(entry, self._cache),
            adapter=adapter,
            loras=Loras(adapter.pipe, in_place=entry.compile and self._device.type == "cuda"),
            weights=weights.inspect(folder, entry.family, entry.variant).bytes_as(speed.dtype_name(dtype)),
            dtype=speed.dtype_name(dtype),
        )

    def settle(self, resident: Resident) -> None:
        """Once it is on the device for the first time: makes it fast, and finds how many at once pay."""
        entry, defaults = resident.entry, resident.entry.defaults
        run = Run(
            task="text-to-image",
            width=defaults.width,
            height=defaults.height,
            steps=defaults.steps,
            guidance=defaults.guidance,
            scheduler=defaults.scheduler,
        )
        try:
            traits = speed.quicken(
                resident.adapter,
                run,
                self._device,
                attention_backend=entry.attention,
                compiled=entry.compile,
                fp8=entry.fp8,
            )
        except (UnknownAttention, NotPossibleHere) as exc:
            logger.error("The model %s is not as its entry in the catalog wants it: %s", entry.alias, exc)  # noqa: TRY400
            raise NotMade(MODEL_NOT_USABLE) from exc
        resident.traits = {name: value for name, value in traits.items() if value}
        resident.batch = self._batch(resident, run)
        logger.info("The model %s is ready: %s, batch %d", entry.alias, dict(traits), resident.batch)

    def _batch(self, resident: Resident, run: Run) -> int:
        """On the CPU nothing is tried: a step of a real model takes longer than all trials may."""
        asked = resident.entry.limits.batch
        if isinstance(asked, int):
            return asked
        if self._device.type == "cpu":
            return 1
        trials = Trials(
            self._device, lambda size: speed.seconds_for(resident.adapter, run, size, self._device)
        )
        return sweep(trials.seconds, budget_s=SWEEP_S)

    def _guard(self, entry: ModelEntry, dtype: torch.dtype) -> SafetyGuard | None:
        try:
            folder = hub.resolve_checker(entry, self._cache)
            if folder is None:
                return None
            safety = entry.safety
            checker = SafetyChecker.load(
                folder, safety.unsafe_labels, safety.threshold, torch.device("cpu"), dtype
            )
            return SafetyGuard(checker, safety.mode)
        except (NotDownloaded, CheckerNotUsable) as exc:
            logger.error("The safety checker of %s can't be used: %s", entry.alias, exc)  # noqa: TRY400
            raise NotMade(CHECKER_NOT_USABLE) from exc

    def lora(self, entry: ModelEntry, alias: str) -> Path:
        """The file of one of the entry's LoRAs, examined once."""
        if alias not in entry.loras:
            raise NotMade(LORA_NOT_USABLE)
        try:
            file = hub.resolve_lora(entry, alias, self._cache)
            if file not in self._good_loras:
                weights.inspect_lora(file)
                self._good_loras.add(file)
        except (NotDownloaded, weights.UnusableLora) as exc:
            logger.warning("The LoRA %s of %s is not loaded: %s", alias, entry.alias, exc)
            raise NotMade(LORA_NOT_USABLE) from exc
        return file

    def _folder(self, entry: ModelEntry) -> Path:
        try:
            return hub.resolve(entry, self._cache)
        except NotDownloaded as exc:
            if self._fetch is None:
                logger.warning("The model %s: %s", entry.alias, exc)
                raise NotMade(NOT_DOWNLOADED) from exc
        try:
            self._fetch(entry)
            return hub.resolve(entry, self._cache)
        except Exception as exc:
            logger.warning("The model %s could not be downloaded: %s", entry.alias, exc)
            raise NotMade(NOT_DOWNLOADED) from exc

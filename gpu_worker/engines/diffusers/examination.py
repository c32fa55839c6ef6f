"""What this machine has of a catalog: what is downloaded, what may be loaded, what fits into which device."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gpu_worker.engines.diffusers.catalog import Catalog, ModelEntry
from gpu_worker.engines.diffusers.download import in_words
from gpu_worker.engines.diffusers.hub import (
    NotDownloaded,
    chosen,
    find,
    wanted_checker,
    wanted_lora,
    wanted_of,
)
from gpu_worker.engines.diffusers.lock_file import UnreadableLock
from gpu_worker.engines.diffusers.weights import Inspection, UnusableFiles, inspect, inspect_lora

NEEDED: Final = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors")
DENOISERS: Final = frozenset({"unet", "transformer"})

# What an image needs beside the weights: libraries and their buffers, and the pixels of the largest step,
# which is to decode one image without tiling.
FOR_LIBRARIES_BYTES: Final = 1_000_000_000
PER_PIXEL_BYTES: Final = 3_000

Fit = Literal["fits", "offload", "too large", "unknown"]
FITS: Final[Mapping[Fit, str]] = {
    "fits": "fits",
    "offload": "fits part by part (slow)",
    "too large": "is too large",
    "unknown": "memory unknown",
}


@dataclass(frozen=True)
class Memory:
    """A device, and how much it holds."""

    device: str
    bytes: int | None
    half: bool = True  # whether `auto` means two bytes for a number there; on the CPU and MPS it means four


@dataclass(frozen=True)
class Examined:
    """One model of the catalog, as it is on this machine."""

    alias: str
    family: str
    source: str
    license: str
    safety: str
    here: bool
    revision: str | None = None
    bytes_on_disk: int | None = None
    device_bytes: int | None = None  # that it is expected to need
    fits: Mapping[str, Fit] | None = None  # by device
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def missing_packages() -> list[str]:
    """The packages of the extra `gpu` that the engine needs and that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def examine(
    catalog: Catalog, names: list[str], cache: Path, devices: Sequence[Memory] = ()
) -> list[Examined]:
    """All models of these names, or all of the catalog. Raises `UnknownModel`."""
    return [_examined(entry, cache, devices, needed=bool(names)) for entry in chosen(catalog, names)]


def _examined(entry: ModelEntry, cache: Path, devices: Sequence[Memory], *, needed: bool) -> Examined:
    faults: list[str] = []
    notes = list(_beside(entry, cache, faults))
    revision, found = None, None
    try:
        place = find(wanted_of(entry), cache)
        revision, found = place.revision, inspect(place.path, entry.family, entry.variant)
    except NotDownloaded as exc:
        (faults if needed else notes).append(str(exc))
    except UnreadableLock as exc:
        faults.append(str(exc))
    except UnusableFiles as exc:
        faults.extend(exc.faults)
    needs = device_bytes(entry, found) if found else None
    fits = {one.device: fit(entry, found, one) for one in devices} if found else None
    if fits and set(fits.values()) == {"too large"}:
        faults.append("it fits into no device of this machine")
    return Examined(
        alias=entry.alias,
        family=entry.family,
        source=entry.source,
        license=entry.license,
        safety=entry.safety.mode,
        here=revision is not None,
        revision=revision,
        bytes_on_disk=found.bytes_on_disk if found else None,
        device_bytes=needs,
        fits=fits,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _beside(entry: ModelEntry, cache: Path, faults: list[str]) -> Iterator[str]:
    """What is to be said of its LoRAs and its checker; faults go where they belong."""
    if checker := wanted_checker(entry):
        try:
            find(checker, cache)
        except (NotDownloaded, UnreadableLock) as exc:
            yield str(exc)
    for name in entry.loras:
        try:
            found = inspect_lora(find(wanted_lora(entry, name), cache).path)
        except (NotDownloaded, UnreadableLock) as exc:
            yield str(exc)
        except UnusableFiles as exc:
            faults.append(f"the LoRA {name}: {exc}")
        else:
            if found.family not in {None, entry.family}:
                faults.append(f"the LoRA {name} seems to be made for {found.family}, not for {entry.family}")


# -- memory ------------------------------------------------------------------------------------------------


def device_bytes(entry: ModelEntry, found: Inspection) -> int:
    """What a GPU needs for one image of the default size: the weights, and room to work."""
    return sum(_weights(entry, found).values()) + _room(entry)


def fit(entry: ModelEntry, found: Inspection, device: Memory) -> Fit:
    """Whether it fits into that much memory: whole, or one component after the other."""
    if device.bytes is None:
        return "unknown"
    weights = _weights(entry, found, half=device.half).values()
    if sum(weights) + _room(entry) <= device.bytes:
        return "fits"
    largest = max(weights, default=0) + _room(entry)
    return "offload" if entry.offload == "auto" and largest <= device.bytes else "too large"


def _room(entry: ModelEntry) -> int:
    return FOR_LIBRARIES_BYTES + PER_PIXEL_BYTES * entry.defaults.width * entry.defaults.height


def _weights(entry: ModelEntry, found: Inspection, *, half: bool = True) -> dict[str, int]:
    """Bytes in memory, by component."""
    dtype = "float32" if entry.dtype == "auto" and not half else entry.dtype
    whole = {one.name: one.bytes_as(dtype) for one in found.components}
    halved = DENOISERS if entry.fp8 else frozenset()
    return {name: size // 2 if name in halved else size for name, size in whole.items()}


# -- in words ----------------------------------------------------------------------------------------------


def told(one: Examined) -> Iterator[str]:
    """What people want to know of a model, in lines."""
    state = f"here at {(one.revision or '')[:12]}" if one.here else "not here"
    yield f"{one.alias} ({one.family}): {state}"
    if one.bytes_on_disk is not None and one.device_bytes is not None:
        yield f"  {in_words(one.bytes_on_disk)} on disk, about {in_words(one.device_bytes)} on a device"
    for device, verdict in (one.fits or {}).items():
        yield f"  {device}: {FITS[verdict]}"
    yield f"  licence: {one.license}"
    if one.safety != "off":
        yield f"  safety checker: {one.safety}"
    yield from (f"  {note}" for note in one.notes)

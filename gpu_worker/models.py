"""The models of this machine, for people: what the catalog has, what is here, what fits; and getting them."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from gpu_worker.devices import NoDevice, ask_torch
from gpu_worker.engines.diffusers.catalog import Catalog
from gpu_worker.engines.diffusers.catalog_file import CatalogError, load_catalog
from gpu_worker.engines.diffusers.download import DownloadFailed, Hub, fetch
from gpu_worker.engines.diffusers.examination import Examined, Memory, examine, missing_packages, told
from gpu_worker.engines.diffusers.hub import UnknownModel, chosen, default_cache
from gpu_worker.settings import ModelSettings

ENGINE = "diffusers"
FAILED, MISUSED = 1, 2  # exit codes
GET_THE_EXTRA = "pip install 'fanfare[gpu]'"


def show_models(settings: ModelSettings, *, as_json: bool = False) -> int:
    """Prints the catalog and what this machine has of it; 0 if nothing of it is at fault."""
    try:
        models = _examined(settings)
    except (CatalogError, UnknownModel) as exc:
        return _refused(exc)
    faults = [f"{one.alias}: {fault}" for one in models for fault in one.faults]
    if as_json:
        _say(json.dumps([asdict(one) for one in models], indent=1))
    else:
        for line in _lines(models):
            _say(line)
        for fault in faults:
            _say(f"To mend: {fault}")
    return FAILED if faults else 0


def download_models(settings: ModelSettings, aliases: Sequence[str], *, update: bool = False) -> int:
    """Fetches these models, with their LoRAs and checkers; 0 if all are here."""
    try:
        entries = chosen(_catalog(settings), list(aliases))
    except (CatalogError, UnknownModel) as exc:
        return _refused(exc)
    if importlib.util.find_spec("huggingface_hub") is None:
        return _refused(f"The package huggingface_hub is missing: {GET_THE_EXTRA}")
    hub, failed = Hub.of_environment(_cache(settings)), 0
    for entry in entries:
        _say(f"{entry.alias}: licence: {entry.license}")
        try:
            places = fetch(entry, hub, update=update, say=lambda line: _say(f"  {line}"))
        except DownloadFailed as exc:
            failed += 1
            sys.stderr.write(f"{entry.alias}: {exc}\n")
        else:
            _say(f"{entry.alias}: " + (f"here at {places[0].revision}" if places else "nothing to download"))
    return FAILED if failed else 0


def check_models(settings: ModelSettings) -> Iterator[str]:
    """Prints what `show_models` prints, and gives what must be mended before a node can serve."""
    if missing := missing_packages():
        yield f"The engine {ENGINE} needs packages that are missing ({', '.join(missing)}): {GET_THE_EXTRA}"
    try:
        models = _examined(settings)
    except CatalogError as exc:
        yield from (f"{exc.path}: {fault}" for fault in exc.faults)
        return
    except UnknownModel as exc:
        yield f"FANFARE_NODE_MODELS: {exc}"
        return
    for line in _lines(models):
        _say(f"  {line}")
    wanted_later = settings.node_download and settings.node_models
    for one in models:
        if one.here or not wanted_later:
            yield from (f"{one.alias}: {fault}" for fault in one.faults)
    if not any(one.here for one in models) and not wanted_later:
        yield "No model of the catalog is here: fanfare-node download ALIAS"


def _examined(settings: ModelSettings) -> list[Examined]:
    return examine(_catalog(settings), settings.node_models, _cache(settings), _memories())


def _catalog(settings: ModelSettings) -> Catalog:
    return load_catalog(Path(settings.node_catalog).expanduser() if settings.node_catalog else None)


def _cache(settings: ModelSettings) -> Path:
    return Path(settings.node_model_cache).expanduser() if settings.node_model_cache else default_cache()


def _memories() -> list[Memory]:
    """The devices of this machine; none where torch is missing or finds none."""
    if importlib.util.find_spec("torch") is None:
        return []
    try:
        devices = ask_torch()["devices"]
    except NoDevice:
        return []
    return [
        Memory(
            f"{one['kind']} {one['index']} ({one['name']})",
            one["memory_bytes"],
            half=one["kind"] in {"cuda", "rocm"},
        )
        for one in devices
    ]


def _lines(models: Sequence[Examined]) -> Iterator[str]:
    for one in models:
        yield from told(one)


def _refused(why: object) -> int:
    if isinstance(why, CatalogError):
        sys.stderr.writelines(f"{why.path}: {fault}\n" for fault in why.faults)
    else:
        sys.stderr.write(f"{why}\n")
    return MISUSED


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

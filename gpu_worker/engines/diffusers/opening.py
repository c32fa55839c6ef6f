"""Opens the engine: what the catalog and the machine have, on the device of this process."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gpu_worker.engines.diffusers import speed
from gpu_worker.engines.diffusers.catalog import ModelEntry
from gpu_worker.engines.diffusers.catalog_file import load_catalog
from gpu_worker.engines.diffusers.device import this_device
from gpu_worker.engines.diffusers.download import Hub
from gpu_worker.engines.diffusers.engine import DiffusersEngine
from gpu_worker.engines.diffusers.hub import all_wanted, default_cache, served
from gpu_worker.engines.diffusers.loading import Loader


class NothingToServe(Exception):
    """No model of the catalog is on this machine."""


def open_engine(
    catalog: str, names: Sequence[str], model_cache: str, *, download: bool, slot: str
) -> DiffusersEngine:
    """`catalog`: path of the catalog's file; empty: the one that comes with Fanfare. `names`: the models of
    it that are served; none: all that are on this machine. `model_cache`: a folder for downloads; empty: that
    of Hugging Face. `download`: models that are not there are fetched.

    Raises `CatalogError`, `UnknownModel`, `NotDownloaded` or `NothingToServe`: each says what to do.
    """
    cache = Path(model_cache).expanduser() if model_cache else default_cache()
    entries = models_to_serve(catalog, names, cache, download=download)
    device = this_device(slot)
    torch_device = torch.device("cuda" if device.kind == "rocm" else device.kind)
    speed.prepare_process(torch_device)
    hub = Hub.of_environment(cache)

    def fetch(entry: ModelEntry) -> None:
        for wanted in all_wanted(entry):
            if not wanted.local:
                hub.download(wanted)

    loader = Loader(entries, cache, torch_device, fetch=fetch if download else None)
    return DiffusersEngine(entries, loader, device, torch_device)


def models_to_serve(catalog: str, names: Sequence[str], cache: Path, *, download: bool) -> list[ModelEntry]:
    """The entries that this node serves. Raises as `open_engine` does."""
    entries = served(load_catalog(Path(catalog) if catalog else None), list(names), cache, download=download)
    if not entries:
        raise NothingToServe(
            "No model of the catalog is on this machine. `fanfare-node check` lists them all, "
            "`fanfare-node download ALIAS` gets one"
        )
    return entries

"""Where models are on this machine: in folders, or in the Hugging Face cache. No network."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gpu_worker.engines.diffusers.catalog import Catalog, Fetched, LoraEntry, ModelEntry
from gpu_worker.engines.diffusers.lock_file import Locked, read_lock
from gpu_worker.engines.diffusers.weights import digest

Kind = Literal["pipeline", "lora", "classifier"]
BRANCH: Final = "main"  # what is downloaded where neither catalog nor lock file names a commit


class NotDownloaded(Exception):
    """Something that a model needs is not on this machine; the text says what to do."""


class ChangedFolder(NotDownloaded):
    """A folder isn't what the catalog says it is."""


class UnknownModel(Exception):
    """The catalog has no such model."""


@dataclass(frozen=True)
class Wanted:
    """What is to be on this machine: a pipeline, a LoRA, or a classifier, of one source."""

    alias: str  # of the model that needs it
    kind: Kind
    source: str
    local: bool
    revision: str | None = None  # a commit that the catalog names
    variant: str | None = None  # of a pipeline
    family: str | None = None  # of a pipeline
    file: str | None = None  # of a LoRA
    name: str = ""  # of a LoRA

    @property
    def key(self) -> str:
        """Under which the lock file knows it."""
        commit = f"@{self.revision}" if self.revision else ""
        part = {"pipeline": self.variant, "lora": self.file, "classifier": "classifier"}[self.kind]
        return f"{self.source}{commit}" + (f" {part}" if part else "")

    @property
    def told(self) -> str:
        """In words."""
        return {"pipeline": "the model", "lora": f"the LoRA {self.name}", "classifier": "the safety checker"}[
            self.kind
        ]


@dataclass(frozen=True)
class Place:
    """Where something is, and what it is exactly."""

    path: Path  # a folder; of a LoRA the file
    revision: str  # the commit; of what is no download, a digest of its content


def default_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """The cache that all Hugging Face libraries share on this machine."""
    if chosen := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


# -- what an entry needs -----------------------------------------------------------------------------------


def wanted_of(entry: ModelEntry) -> Wanted:
    """The model itself."""
    return Wanted(
        entry.alias, "pipeline", entry.source, entry.local, entry.revision, entry.variant, entry.family
    )


def wanted_lora(entry: ModelEntry, name: str) -> Wanted:
    """One of its LoRAs."""
    lora = entry.loras[name]
    return Wanted(entry.alias, "lora", lora.source, lora.local, lora.revision, file=lora.file, name=name)


def wanted_checker(entry: ModelEntry) -> Wanted | None:
    """Its safety checker, where it has one."""
    checker: Fetched | None = entry.safety.checker()
    if checker is None:
        return None
    return Wanted(entry.alias, "classifier", checker.source, checker.local, checker.revision)


def all_wanted(entry: ModelEntry) -> Iterator[Wanted]:
    """All that an entry names."""
    yield wanted_of(entry)
    yield from (wanted_lora(entry, name) for name in entry.loras)
    if checker := wanted_checker(entry):
        yield checker


# -- where it is -------------------------------------------------------------------------------------------


def resolve(entry: ModelEntry, cache: Path) -> Path:
    """The folder of a model. Raises `NotDownloaded`."""
    return find(wanted_of(entry), cache).path


def resolve_lora(entry: ModelEntry, name: str, cache: Path) -> Path:
    """The file of one of a model's LoRAs. Raises `NotDownloaded`."""
    return find(wanted_lora(entry, name), cache).path


def resolve_checker(entry: ModelEntry, cache: Path) -> Path | None:
    """The folder of a model's safety checker; None: it has none. Raises `NotDownloaded`."""
    wanted = wanted_checker(entry)
    return find(wanted, cache).path if wanted else None


def find(wanted: Wanted, cache: Path) -> Place:
    """Where it is on this machine. Raises `NotDownloaded`, or `UnreadableLock`."""
    return _in_folder(wanted) if wanted.local else _in_cache(wanted, cache)


def snapshot(cache: Path, source: str, revision: str) -> Path:
    """Where the Hugging Face cache keeps a commit of a repository."""
    return cache / ("models--" + source.replace("/", "--")) / "snapshots" / revision


def _in_folder(wanted: Wanted) -> Place:
    path = Path(wanted.source)
    path = path / wanted.file if wanted.file else path
    if not path.exists():
        raise NotDownloaded(f"{wanted.told} is not there: {path}")
    revision = digest(path)
    if wanted.revision not in {None, revision}:
        raise ChangedFolder(
            f"{wanted.told} has changed: {path} is {revision}, the catalog says {wanted.revision}"
        )
    return Place(path, revision)


def _in_cache(wanted: Wanted, cache: Path) -> Place:
    locked = _locked(wanted, cache)
    revision = wanted.revision or (locked.revision if locked else None)
    if revision is None:
        raise NotDownloaded(_not_pinned(wanted, cache))
    folder = snapshot(cache, wanted.source, revision)
    path = folder / wanted.file if wanted.file else folder
    gone = [name for name in (locked.files if locked else ()) if not (folder / name).exists()]
    if gone or not path.exists():
        raise NotDownloaded(f"{wanted.told} is not downloaded{_in_part(gone)}: {_to_do(wanted)}")
    return Place(path, revision)


def _locked(wanted: Wanted, cache: Path) -> Locked | None:
    """The finished download; also where the catalog was given the commit only later."""
    downloads = read_lock(cache)
    if (locked := downloads.get(wanted.key)) or wanted.revision is None:
        return locked
    unpinned = downloads.get(wanted.key.replace(f"@{wanted.revision}", "", 1))
    return unpinned if unpinned and unpinned.revision == wanted.revision else None


def _not_pinned(wanted: Wanted, cache: Path) -> str:
    """Others may have downloaded it; then the commit that they fetched is told, and not trusted."""
    told = f"{wanted.told} is not downloaded: {_to_do(wanted)}"
    reference = snapshot(cache, wanted.source, "").parent / "refs" / BRANCH
    try:
        commit = reference.read_text("ascii").strip()[:40]
    except (OSError, ValueError):
        return told
    if not snapshot(cache, wanted.source, commit).is_dir():
        return told
    return f'{told}; or, to use what is in the cache already, set its revision = "{commit}" in the catalog'


def _in_part(gone: list[str]) -> str:
    return f" completely ({len(gone)} files are missing)" if gone else ""


def _to_do(wanted: Wanted) -> str:
    return f"fanfare-node download {wanted.alias}"


# -- what is served ----------------------------------------------------------------------------------------


def chosen(catalog: Catalog, names: list[str]) -> list[ModelEntry]:
    """The entries of these names; all where there is no name. Raises `UnknownModel`."""
    unknown = [name for name in names if name not in catalog.models]
    if unknown:
        there = ", ".join(catalog.models)
        raise UnknownModel(f"the catalog has no model {', '.join(unknown)}; there are: {there}")
    return [catalog.models[name] for name in (dict.fromkeys(names) or catalog.models)]


def served(catalog: Catalog, names: list[str], cache: Path, *, download: bool = False) -> list[ModelEntry]:
    """The models that a node serves, each with its revision filled in.

    With `names` these, else all that are on this machine. With `download` those of `names` that are not here
    yet are served, too: they have no revision until they are fetched. LoRAs that are not on this machine are
    left out. Raises `UnknownModel`, and, for a model of `names`, `NotDownloaded`.
    """
    entries = []
    for entry in chosen(catalog, names):
        try:
            entries.append(as_served(entry, cache))
        except NotDownloaded:
            if names and download:
                entries.append(entry)
            elif names:
                raise
    return entries


def as_served(entry: ModelEntry, cache: Path) -> ModelEntry:
    """The entry as it is on this machine. Raises `NotDownloaded` where it can't be served."""
    place = find(wanted_of(entry), cache)
    if checker := wanted_checker(entry):
        find(checker, cache)
    loras = {name: lora for name in entry.loras if (lora := _lora_here(entry, name, cache))}
    return entry.model_copy(update={"revision": place.revision, "loras": loras})


def _lora_here(entry: ModelEntry, name: str, cache: Path) -> LoraEntry | None:
    try:
        place = find(wanted_lora(entry, name), cache)
    except NotDownloaded:
        if name in entry.loras_always:
            raise
        return None
    return entry.loras[name].model_copy(update={"revision": place.revision})

"""Reads a catalog from its TOML file, and tells all that is wrong with it at once."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gpu_worker.engines.diffusers.catalog import (
    Catalog,
    Defaults,
    Limits,
    LoraEntry,
    ModelEntry,
    Safety,
    Table,
    is_local,
)

SHIPPED: Final = Path(__file__).with_name("catalog.toml")
MAX_BYTES: Final = 4_000_000

_TABLES: Final[Mapping[str, type[Table]]] = {
    "defaults": Defaults, "limits": Limits, "safety": Safety, "loras": LoraEntry,
}  # fmt: skip
_IN_WORDS: Final[Mapping[str, str]] = {  # instead of a regular expression
    "source": "the hub's id of a repository (owner/name), or a path (/..., ./..., ../... or ~/...)",
    "revision": "a commit, 40 hex digits in full: a branch or a tag may move",
    "[key]": "names are lower case letters, digits, dots, dashes and underscores",
    "alias": "names are lower case letters, digits, dots, dashes and underscores",
}
_AT_THE_TOP: Final = ("models", "safety")
_WRITTEN_BY_US: Final = "alias"  # the name of the table says it

Raw = dict[str, Any]


class CatalogError(Exception):
    """The catalog can't be used; `faults` are all reasons, each with its table and key."""

    def __init__(self, path: Path, faults: tuple[str, ...]) -> None:
        super().__init__(f"{path}: " + "; ".join(faults))
        self.path = path
        self.faults = faults


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog of this file; None: the shipped one. Raises `CatalogError`."""
    path = path or SHIPPED
    faults: list[str] = []
    entries = dict(_entries(_read(path), path.resolve().parent, faults))
    if faults:
        raise CatalogError(path, tuple(faults))
    return Catalog(models=entries)


def _read(path: Path) -> Raw:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CatalogError(path, (f"is larger than {MAX_BYTES} bytes",))
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise CatalogError(path, (f"can't be read: {exc.strerror or exc}",)) from exc
    except UnicodeDecodeError as exc:
        raise CatalogError(path, ("is not UTF-8",)) from exc
    except tomllib.TOMLDecodeError as exc:
        raise CatalogError(path, (f"is not TOML: {exc}",)) from exc


def _entries(raw: Raw, folder: Path, faults: list[str]) -> Iterator[tuple[str, ModelEntry]]:
    faults.extend(
        f"{key}: unknown table{_suggestion(key, _AT_THE_TOP)}" for key in raw if key not in _AT_THE_TOP
    )
    models = raw.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(one, dict) for one in models.values()):
        faults.append("models: is not a table of tables: write [models.ALIAS]")
        return
    for alias, own in models.items():
        try:
            merged = _merged(alias, models, ())
        except _NoBase as exc:
            faults.append(f"models.{alias}.base: {exc}")
            continue
        if "safety" in raw:
            merged.setdefault("safety", raw["safety"])
        found, entry = _entry(alias, own, _with_paths(merged, folder))
        faults.extend(f"models.{alias}.{fault}" for fault in found)
        if entry:
            yield alias, entry


# -- base --------------------------------------------------------------------------------------------------


class _NoBase(Exception):
    """The entry derives from nothing."""


def _merged(alias: str, models: Raw, seen: tuple[str, ...]) -> Raw:
    """The table of an entry over that of its base."""
    own = models[alias]
    base = own.get("base")
    if base is None:
        return dict(own)
    if not isinstance(base, str) or base not in models:
        raise _NoBase(f"there is no model {base!r}{_suggestion(str(base), tuple(models))}")
    if base in (*seen, alias):
        raise _NoBase("goes in a circle: " + " -> ".join((*seen, alias, base)))
    over = {key: value for key, value in own.items() if key != "base"}
    return _laid_over(_merged(base, models, (*seen, alias)), over)


def _laid_over(below: Raw, above: Raw) -> Raw:
    """Tables are merged key by key; everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = below.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]  # `both` says so
    return result


def _with_paths(table: Raw, folder: Path) -> Raw:
    """The same with paths made absolute: relative ones start at the catalog's folder."""
    result = dict(table)
    for key, value in table.items():
        if isinstance(value, dict):
            result[key] = _with_paths(value, folder)
        elif key == "source" and isinstance(value, str) and is_local(value):
            result[key] = str(folder / Path(value).expanduser())
    return result


# -- one entry ---------------------------------------------------------------------------------------------


def _entry(alias: str, own: Raw, merged: Raw) -> tuple[list[str], ModelEntry | None]:
    if _WRITTEN_BY_US in own:
        return [f"{_WRITTEN_BY_US}: unknown key: the table's name is the alias"], None
    try:
        # As JSON, where a list may stand for a tuple while "30" still is no number
        text = json.dumps({**merged, _WRITTEN_BY_US: alias}, default=str)
        entry = ModelEntry.model_validate_json(text, strict=True)
    except ValidationError as exc:
        return _told(exc), None
    except ValueError as exc:
        return [f"source: {exc}"], None
    return list(_contradictions(entry)), entry


def _told(exc: ValidationError) -> list[str]:
    """One line per key: both branches of a union are one fault."""
    lines: dict[str, list[str]] = {}
    for error in exc.errors(include_url=False, include_input=False):
        loc = [str(part) for part in error["loc"]]
        depth = 1 if not loc or loc[0] not in _TABLES else 3 if loc[0] == "loras" else 2
        key = ".".join(part for part in loc[:depth] if part != "[key]") or "source"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"unknown key{_suggestion(loc[-1], _known_keys(loc))}"
        elif error["type"] == "string_pattern_mismatch":
            message = _IN_WORDS.get(loc[-1], message)
        lines.setdefault(key, []).append(message[:1].lower() + message[1:])
    return [f"{key}: {', or '.join(dict.fromkeys(messages))}" for key, messages in lines.items()]


def _known_keys(loc: list[str]) -> tuple[str, ...]:
    table = _TABLES.get(loc[0], ModelEntry) if len(loc) > 1 else ModelEntry
    keys = set(table.model_fields) - {_WRITTEN_BY_US}
    return tuple(sorted(keys | {"base"} if table is ModelEntry else keys))


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there are: {', '.join(known)})" if known else ""


def _contradictions(entry: ModelEntry) -> Iterator[str]:
    """What is valid key by key, and yet can't be."""
    yield from _names_unknown_to_the_family(entry)
    yield from _impossible_sizes(entry)
    yield from _impossible_loras(entry)
    if entry.defaults.steps > entry.limits.max_steps:
        yield f"defaults.steps: is more than limits.max_steps, which is {entry.limits.max_steps}"
    if entry.fp8 and entry.dtype not in {"auto", "bfloat16"}:
        yield "fp8: goes with bfloat16 alone"
    if "text-to-image" not in entry.can:
        yield "tasks: text-to-image is always one"


def _names_unknown_to_the_family(entry: ModelEntry) -> Iterator[str]:
    facts = entry.facts
    for task in entry.tasks:
        if task not in facts.pipelines:
            yield f"tasks: the family {entry.family} can't do {task}"
    for name in entry.schedulers:
        if name not in facts.schedulers:
            yield f"schedulers: {name!r} is not for {entry.family}{_suggestion(name, facts.schedulers)}"
    chosen = entry.defaults.scheduler
    if chosen and chosen not in entry.scheduler_names:
        yield f"defaults.scheduler: unknown{_suggestion(chosen, entry.scheduler_names)}"


def _impossible_sizes(entry: ModelEntry) -> Iterator[str]:
    limits, multiple = entry.limits, entry.facts.size_multiple
    if limits.min_size > limits.max_size:
        yield "limits.min_size: is more than max_size"
    for key in ("width", "height"):
        size = getattr(entry.defaults, key)
        if not limits.min_size <= size <= limits.max_size:
            yield f"defaults.{key}: {size} is not within limits ({limits.min_size} to {limits.max_size})"
        if size % multiple:
            yield f"defaults.{key}: {size} is no multiple of {multiple}, as {entry.family} needs it"
    if entry.defaults.width * entry.defaults.height > limits.max_pixels:
        yield "limits.max_pixels: is less than the default size has"


def _impossible_loras(entry: ModelEntry) -> Iterator[str]:
    for name, lora in entry.loras.items():
        if lora.family not in {None, entry.family}:
            yield f"loras.{name}.family: {lora.family} doesn't go with {entry.family}"
    for name in entry.loras_always:
        if name not in entry.loras:
            yield f"loras_always: there is no [loras.{name}]{_suggestion(name, tuple(entry.loras))}"

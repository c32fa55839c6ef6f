"""The environment's names: which there are, which are misspelt, and what is wrong with their values."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from dotenv import dotenv_values
from pydantic import AliasChoices, SecretStr, ValidationError

from backend.doctor.findings import Finding, ok, warn
from backend.settings import Settings

PREFIX = "FANFARE_"
OF_THE_COMMAND_LINE = ("FANFARE_API_URL", "FANFARE_API_KEY")
OF_NODES = (  # a node's own settings; tests compare them with gpu_worker.settings
    "FANFARE_NODE_NAME",
    "FANFARE_NODE_ENGINES",
    "FANFARE_NODE_DEVICES",
    "FANFARE_NODE_DOWNLOAD",
    "FANFARE_NODE_CATALOG",
    "FANFARE_NODE_CONCURRENCY",
    "FANFARE_NODE_ANNOUNCE_S",
    "FANFARE_NODE_ATTEMPTS",
    "FANFARE_NODE_DRAIN_S",
    "FANFARE_NODE_MODELS",
    "FANFARE_NODE_MODEL_CACHE",
    "FANFARE_NODE_STALL_S",
    "FANFARE_BATCH_WINDOW_MS",
    "FANFARE_UPLOAD_TIMEOUT_S",
    "FANFARE_SKETCH_DELAY_S",
    "FANFARE_SKETCH_FAULTS",
    "FANFARE_IMAGES_URL",
    "FANFARE_IMAGES_API_KEY",
    "FANFARE_IMAGES_MODELS",
    "FANFARE_IMAGES_TIMEOUT_S",
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/@:]*):([^@/]*)@")


def names_of(field: str) -> tuple[str, ...]:
    """The variables that set this field, ours first."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"{PREFIX}{field.upper()}",)


def environment() -> dict[str, str]:
    """What the settings are read from: `.env` of this folder, and the environment above it."""
    given = {name.upper(): value or "" for name, value in dotenv_values(".env").items()}
    return given | {name.upper(): value for name, value in os.environ.items()}


def unknown(given: Mapping[str, str]) -> Iterator[Finding]:
    """Variables with our prefix that nobody reads: most likely misspelt."""
    known = {name for field in Settings.model_fields for name in names_of(field)}
    known |= {*OF_THE_COMMAND_LINE, *OF_NODES}
    for name in sorted(given):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            mend = f"Did you mean {near[0]}?" if near else "Remove it, or look it up in .env.example."
            yield warn("settings", f"{name} is not a setting", mend)


def in_use(settings: Settings, given: Mapping[str, str]) -> Finding:
    """The variables that are set, with their values where those are no secret."""
    shown = []
    for field in Settings.model_fields:
        name = next((name for name in names_of(field) if given.get(name)), None)
        if name:
            secret = isinstance(getattr(settings, field), SecretStr) or "SECRET" in name
            shown.append(f"{name}={'***' if secret else masked(given[name])}")
    return ok("settings", ", ".join(shown) or "all at their defaults")


def masked(url: str) -> str:
    """The text, with the passwords of URLs blotted out."""
    return _PASSWORD_IN_URL.sub(r"\1:***@", url)


def explain(exc: ValidationError) -> list[str]:
    """What is wrong with the settings, by the names that the user knows. Shows no value of a secret."""
    return list(_explanations(exc))


def _explanations(exc: ValidationError) -> Iterable[str]:
    for error in exc.errors(include_url=False, include_context=False):
        where = str(error["loc"][0]) if error["loc"] else ""
        name = names_of(where)[0] if where in Settings.model_fields else where
        secret = any(word in name.upper() for word in ("KEY", "SECRET", "TOKEN", "URL"))
        given = f" (it is {error['input']!r})" if where and not secret else ""
        yield f"{name or 'settings'}: {error['msg']}{given}"

"""The lock file beside the downloaded models: which commit of each is served, and what its files were."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

NAME: Final = "fanfare.lock.json"
VERSION: Final = 1


class LockedFile(BaseModel):
    """One file, as it was downloaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Locked(BaseModel):
    """One download that was finished and verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str  # a commit
    files: Mapping[str, LockedFile]


class _Content(BaseModel):
    version: int = VERSION
    downloads: dict[str, Locked] = {}


class UnreadableLock(Exception):
    """The lock file is there and can't be understood; the text says where it is."""


def read_lock(cache: Path) -> dict[str, Locked]:
    """All finished downloads, by `Wanted.key`. Raises `UnreadableLock`."""
    path = cache / NAME
    try:
        content = _Content.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValidationError) as exc:
        raise UnreadableLock(f"{path} can't be read; delete it and download again") from exc
    if content.version != VERSION:
        raise UnreadableLock(f"{path} was written by a newer version")
    return content.downloads


def write_lock(cache: Path, key: str, locked: Locked) -> None:
    """Adds or replaces one download; a reader sees the file before or after, whole."""
    with _alone(cache):
        content = _Content(downloads={**read_lock(cache), key: locked})
        text = json.dumps(content.model_dump(mode="json"), indent=1, sort_keys=True)
        handle, temporary = tempfile.mkstemp(dir=cache, prefix=f".{NAME}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text + "\n")
            Path(temporary).chmod(0o644)
            Path(temporary).replace(cache / NAME)
        finally:
            Path(temporary).unlink(missing_ok=True)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Nobody else writes meanwhile."""
    with (cache / f".{NAME}.writing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Looks through folders of files, as they are read: there may be more than memory takes."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def files_below(root: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each file whose path below `root` begins with `prefix`, as that path and what is known of it.

    Files of one folder come together. Links are passed over, and so is what begins with a dot. What goes
    away meanwhile is no error; any other OSError is raised.
    """
    folder, _, beginning = prefix.rpartition("/")
    yield from _below(root / folder, f"{folder}/" if folder else "", beginning)


def _below(folder: Path, path: str, beginning: str = "") -> Iterator[tuple[str, os.stat_result]]:
    for name in _names(folder):
        if name.startswith(".") or not name.startswith(beginning):
            continue
        with suppress(FileNotFoundError):
            found = (folder / name).lstat()
            if stat.S_ISDIR(found.st_mode):
                yield from _below(folder / name, f"{path}{name}/")
            elif stat.S_ISREG(found.st_mode):
                yield f"{path}{name}", found


def _names(folder: Path) -> list[str]:
    """Read at once: a folder that is changed while it is read may leave names out."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []

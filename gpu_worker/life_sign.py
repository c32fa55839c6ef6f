"""A sign of life for this machine: a file per node process, written as long as it works, read by `health`."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FRESH_S = 35.0  # three times the interval at which signs are given, and some


@dataclass(frozen=True)
class Sign:
    """What one process has said last."""

    process: str
    text: str
    age_s: float

    @property
    def fresh(self) -> bool:
        return self.age_s < FRESH_S


class LifeSign:
    """Written anew at each `give`, unless `working` says no; gone after `take_back`."""

    def __init__(self, node_name: str, process: str, working: Callable[[], str | None]) -> None:
        self._file = _folder(node_name) / process
        self._working = working  # in words what it is at; None: it can't work

    def give(self) -> None:
        text = self._working()
        if text is None:
            return
        with suppress(OSError):  # a full disk is no reason to end; `health` sees that nothing is written
            _make_private(self._file.parent)
            beside = self._file.with_name(f".{self._file.name}.new")
            beside.write_text(text)
            beside.replace(self._file)

    def take_back(self) -> None:
        with suppress(OSError):
            self._file.unlink()


def read_signs(node_name: str) -> Iterator[Sign]:
    """Of all processes of this node, by name; fresh or not."""
    for file in sorted(_folder(node_name).glob("[!.]*")):
        with suppress(OSError):  # it was taken back in this very moment
            age_s = time.time() - file.stat().st_mtime
            yield Sign(file.name, file.read_text(), age_s)


def _folder(node_name: str) -> Path:
    """Each user has one of his own, also where all share one folder for temporary files."""
    name = re.sub(r"[^\w.-]", "_", node_name).lstrip(".")
    return Path(tempfile.gettempdir()) / f"fanfare-node-{os.geteuid()}" / (name or "_")


def _make_private(folder: Path) -> None:
    """Raises OSError if somebody else was there first."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if folder.parent.is_symlink() or folder.parent.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder.parent} is somebody else's")
    folder.mkdir(mode=0o700, exist_ok=True)

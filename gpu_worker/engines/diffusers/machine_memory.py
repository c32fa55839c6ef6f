"""Memory of the machine, as far as this process may use it: a container may have less than there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

# Of a control group, version 2 and version 1: its limit, what it uses, and what of that is given up first.
_FILES: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def total(root: Path = ROOT) -> int | None:
    """Bytes; None where the system doesn't tell (anything but Linux)."""
    machine = _field(root / "proc/meminfo", "MemTotal")
    return None if machine is None else min([machine, *(limit for limit, _ in _groups(root))])


def free(root: Path = ROOT) -> int | None:
    """Bytes that may be taken without anything being thrown out or killed."""
    machine = _field(root / "proc/meminfo", "MemAvailable")
    if machine is None:
        return None
    return min([machine, *(max(0, limit - used) for limit, used in _groups(root))])


def used(root: Path = ROOT) -> int | None:
    """Bytes that this process has taken."""
    return _field(root / "proc/self/status", "VmRSS")


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of the control groups that this process is in, where they have a limit."""
    for folder in _folders(root):
        for limit_name, used_name, cache_name in _FILES:
            limit, in_use = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and in_use is not None:
                cache = _word(folder / "memory.stat", cache_name) or 0
                yield limit, max(0, in_use - cache)


def _folders(root: Path) -> Iterator[Path]:
    """Those of the process's own groups and of the groups above; in a container, the topmost is its own."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            own = top / path.strip().lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _field(path: Path, name: str) -> int | None:
    """A line like `MemTotal:  123 kB`."""
    kibibytes = _word(path, f"{name}:")
    return None if kibibytes is None else kibibytes * 1024


def _word(path: Path, name: str) -> int | None:
    words = (line.split() for line in _lines(path))
    return next((int(line[1]) for line in words if len(line) > 1 and line[0] == name), None)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None  # `max`: there is no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []

"""A file that comes into being whole or not at all."""

import contextlib
import errno
import os
import secrets
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ABANDONED_AFTER_S = 24 * 3600


class Draft:
    """Written aside, then moved into place at once. Leaving the `with` without `commit` forgets it.

    Raises OSError. The drafts' folder must be on the same file system as the place.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / secrets.token_hex(16)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.bytes = 0  # written so far

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, data: bytes) -> None:
        """Adds the bytes, all of them."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.bytes += len(data)

    def commit(self, place: Path) -> None:
        """Makes the draft the file at `place`, for good: a power cut can't undo it."""
        os.fsync(self._fd)
        self._move(place)
        with contextlib.suppress(FileNotFoundError):  # deleted at once, by somebody else, with its folder
            sync_folder(place.parent)

    def discard(self) -> None:
        """Leaves nothing behind, unless it was committed. May be called again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            finally:
                self._path.unlink(missing_ok=True)

    def _move(self, place: Path) -> None:
        """A folder that was empty may be deleted by somebody else before the file is in it: once more."""
        for _ in range(10):
            try:
                make_folder(place.parent)
                self._path.replace(place)
            except FileNotFoundError:
                continue
            return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))


def make_folder(path: Path) -> None:
    """Makes the folder and those above it, each one for good.

    Raises FileNotFoundError if somebody else deletes one of them meanwhile, NotADirectoryError, OSError.
    """
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    except FileNotFoundError:
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            path.mkdir()
        sync_folder(path.parent)
    else:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes the folder's list of names survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def forget_abandoned(folder: Path, *, dry_run: bool = False) -> list[int]:
    """Deletes drafts of processes that died over them; their sizes. A live one is never this old."""
    limit = time.time() - ABANDONED_AFTER_S
    sizes: list[int] = []
    for path in folder.glob("*"):
        try:
            found = path.lstat()
            if found.st_mtime < limit:
                if not dry_run:
                    path.unlink()
                sizes.append(found.st_size)
        except FileNotFoundError:  # somebody else was faster
            continue
    return sizes

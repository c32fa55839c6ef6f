"""FANFARE_HOME: private, locked by the one `up` that uses it, and where others find its address."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.errors import FanfareError

LOCK_PATIENCE_S = 0.5  # a `make` that only looks holds the lock for an instant
ENDING_WITHIN_S = 20.0  # the guardian of a killed server needs a moment


class HomeUnusable(FanfareError):
    """The home folder can't be used."""

    code = "home_unusable"


class AlreadyRunning(FanfareError):
    """A server with this home is running already."""

    code = "already_running"


@dataclass(frozen=True)
class Running:
    """The server that holds the home's lock. `url` is empty while it is still starting."""

    url: str
    pid: int


@dataclass(frozen=True)
class Home:
    """The folder where the embedded default keeps its things."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def _lock_file(self) -> Path:
        return self.path / "up.lock"

    @property
    def _server_file(self) -> Path:
        return self.path / "server.json"

    def prepare(self) -> None:
        """Makes the folder, for its owner alone. Raises `HomeUnusable`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            write_private(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as exc:
            raise HomeUnusable(
                f"Can't write to {self.path} ({exc.strerror}). Set FANFARE_HOME to a folder of yours."
            ) from exc

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Holds the home for as long as the server runs. Raises `AlreadyRunning`.

        Gives the lock's descriptor: the guardian holds it too, so that nobody starts in this home before the
        last process of a killed server has ended.
        """
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for_lock(descriptor)
            self._write_running(Running("", os.getpid()))
            try:
                yield descriptor
            finally:
                self._server_file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _wait_for_lock(self, descriptor: int) -> None:
        begun = time.monotonic()
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            patience_s = LOCK_PATIENCE_S if _exists(self._read_running().pid) else ENDING_WITHIN_S
            if time.monotonic() - begun > patience_s:
                raise AlreadyRunning(self._who_runs())
            time.sleep(0.05)

    def announce(self, url: str) -> None:
        """Tells others where the server is. Only for the holder of the lock."""
        self._write_running(Running(url, os.getpid()))

    def held(self) -> bool:
        """Whether a server uses this home, or the last of a killed one still does."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def running(self) -> Running | None:
        """The server that uses this home now, if there is one; what a dead one left behind is ignored."""
        if not self.held():
            return None
        running = self._read_running()
        return running if _exists(running.pid) else None

    def _write_running(self, running: Running) -> None:
        write_private(self._server_file, json.dumps(asdict(running)))

    def _read_running(self) -> Running:
        try:
            return Running(**json.loads(self._server_file.read_text()))
        except (OSError, ValueError, TypeError):
            return Running("", 0)  # it has the lock, and has not written yet

    def _who_runs(self) -> str:
        running = self._read_running()
        where = f"at {running.url}" if running.url else "and is still starting"
        return (
            f"A server with this home ({self.path}) runs already {where} (process {running.pid}). "
            "End that one first, or set FANFARE_HOME to another folder."
        )


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _exists(pid: int) -> bool:
    """Whether there is such a process; 0 stands for one that has not written its number yet."""
    if pid == 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_private(path: Path, text: str) -> None:
    """Replaces the file at once; only its owner may read it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)

"""Makes models ready to be loaded, in the background: found, examined, and read once.

Loading itself sets things that hold for the whole process (torch's default dtype, patched constructors),
so it belongs to the engine's thread. What takes long about it with a cold disk, the reading, does not: here
the files are brought into the system's cache, and others are served meanwhile.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

CHUNK = 16 * 2**20
TRY_AGAIN_S = 60.0  # a model that could not be made ready is given another try after so long


class Readiness(threading.Thread):
    """Which models are ready. `find` gives the folder of a model, and raises whatever is wrong with it."""

    def __init__(self, find: Callable[[str], Path]) -> None:
        super().__init__(name="readiness", daemon=True)
        self._find = find
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._at_work: list[str] = []  # the first is being made ready, the others wait for it
        self._known: dict[str, Path | Exception] = {}
        self._failed_at: dict[str, float] = {}

    def prepare(self, model: str) -> bool:
        """Whether the outcome is known, good or bad; if it is not, the work on it has begun."""
        with self._lock:
            if model in self._at_work:
                return False
            if model in self._known and not self._is_stale(model):
                return True
            self._at_work.append(model)
        self._asked.put(model)
        return False

    def at_work(self) -> tuple[str, ...]:
        """The models that are being made ready."""
        with self._lock:
            return tuple(self._at_work)

    def folder(self, model: str) -> Path:
        """Where the model is. Raises what `find` raised; asks it now where nobody has asked before."""
        with self._lock:
            known = self._known.get(model)
        if known is None:
            known = self._outcome(model)
        if isinstance(known, Exception):
            raise known
        return known

    def forget(self, model: str) -> None:
        """The model is to be made ready anew, the next time somebody asks."""
        with self._lock:
            self._known.pop(model, None)

    def stop(self) -> None:
        """The thread ends after the model that it is at."""
        self._asked.put(None)

    def run(self) -> None:
        while (model := self._asked.get()) is not None:
            outcome = self._outcome(model)
            if isinstance(outcome, Path):
                read_through(outcome)
            with self._lock:
                self._known[model] = outcome
                self._failed_at[model] = time.monotonic()
                self._at_work.remove(model)

    def _outcome(self, model: str) -> Path | Exception:
        try:
            return self._find(model)
        except Exception as exc:  # noqa: BLE001 - kept, and raised by `folder`
            logger.warning("The model %s is not usable: %s", model, exc)
            return exc

    def _is_stale(self, model: str) -> bool:
        failed = isinstance(self._known[model], Exception)
        return failed and time.monotonic() - self._failed_at[model] > TRY_AGAIN_S


def read_through(folder: Path) -> int:
    """Reads all weights of a folder once, so that the system has them at hand; how many bytes."""
    total = 0
    buffer = bytearray(CHUNK)
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with file.open("rb", buffering=0) as opened:
                while count := opened.readinto(buffer):
                    total += count
        except OSError as exc:
            logger.warning("%s could not be read ahead: %s", file.name, exc)
    return total

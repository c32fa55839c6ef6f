"""Real processes for tests: started, read and ended by their own ids."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def eventually(ask: Callable[[], T], seconds: float = 60, *, what: str = "") -> T:
    """The first true answer. Fails when there is none in time."""
    until = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < until, f"never came true: {what or ask}"
        time.sleep(0.03)


def alive(pid: int) -> bool:
    """Is there such a process, and is it more than a name in the table?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Running:
    """A process and what it has said."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.decode(errors="replace"))

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def says(self, text: str, times: int = 1, seconds: float = 60) -> None:
        eventually(lambda: self.said.count(text) >= times, seconds, what=f"{text!r} in {self._lines}")

    def send(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """The exit code; all that was said is there then."""
        code = self._process.wait(seconds)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """By force, with its children, if it still runs."""
        for pid in [*self._children(), self.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _children(self) -> list[int]:
        return children_of(self.pid) if alive(self.pid) else []

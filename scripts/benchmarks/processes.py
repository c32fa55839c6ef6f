"""Processes that a benchmark starts, and what they compute."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROC = Path("/proc")
STOP_WITHIN_S = 30.0


class DidNotWork(Exception):
    """A process ended, or did not do its work in time; the text is the end of its log."""


@dataclass
class Process:
    """One that was started, with its log."""

    process: "subprocess.Popen[bytes]"
    log: Path
    begun: float  # time.monotonic()

    def must_live(self) -> None:
        """Raises `DidNotWork`."""
        if self.process.poll() is not None:
            raise DidNotWork(f"It ended ({self.process.returncode}):\n{self.said()}")

    def cpu_seconds(self) -> float | None:
        """What it and its children have computed so far; None: this system doesn't tell."""
        return sum(_cpu_seconds(pid) for pid in family(self.process.pid)) if PROC.exists() else None

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-3000:]

    def end(self) -> None:
        """In good order, or else by force."""
        self.process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_WITHIN_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Starts Python with these arguments, in a group of its own; its standard input stays open."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT,
            env=os.environ | dict(environment) | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    return Process(process, log, time.monotonic())


def family(pid: int) -> list[int]:
    """A process and its children."""
    listed = [file.read_text().split() for file in PROC.glob(f"{pid}/task/*/children")]
    return [pid, *(one for children in listed for child in children for one in family(int(child)))]


def _cpu_seconds(pid: int) -> float:
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

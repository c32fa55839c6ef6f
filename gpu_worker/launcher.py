"""Starts one node process for each slot, keeps it running, and ends all in good order."""

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_worker.devices import SLOT, Slot

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0  # before a restart; doubled each time
LONGEST_PAUSE_S = 60.0
HEALTHY_AFTER_S = 60.0  # who has run for so long is restarted without a pause to speak of
LEAVE_S = 20.0  # for a process to end after its grace
HURRY_S = 15.0  # for a process to hand all back and end, once it was told twice

# What libraries of engines read before any of our code runs. The environment comes before it.
DEFAULTS = {
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # images of many sizes: less memory lost in gaps
    "TOKENIZERS_PARALLELISM": "false",  # it complains about our threads, and a prompt is short
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # they are drawn anew on a line that a log doesn't have
}
# The environment doesn't come before this: a model brings no code.
ALWAYS = {"PYTHONUNBUFFERED": "1", "DIFFUSERS_DISABLE_REMOTE_CODE": "true"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Seat:
    """A slot and the engine that is served there."""

    engine: str
    slot: Slot

    def command(self) -> list[str]:
        return [sys.executable, "-m", "gpu_worker", "serve", self.engine, self.slot.name]

    def environment(self, *, allow_download: bool) -> dict[str, str]:
        """Ours, with what pins the process to its device and what its libraries shall heed."""
        own = {SLOT: self.slot.name, **self.slot.environment, **ALWAYS, **({} if allow_download else OFFLINE)}
        return DEFAULTS | os.environ | own


class Child:
    """The process of one seat, and when to start it again."""

    def __init__(self, seat: Seat, name: str, width: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self._seat = seat
        self._environment = environment
        self._prefix = f"{name:<{width}} | "
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started = 0.0
        self._next_pause_s = FIRST_PAUSE_S
        self.pause_s = 0.0  # before the next start
        self._due = 0.0

    def start_when_due(self) -> None:
        if self._process is None and time.monotonic() >= self._due:
            self._start()

    def _start(self) -> None:
        # A session of its own: Ctrl-C in a terminal is for the launcher, who passes it on.
        # stdin is a pipe that nobody writes to: it closes when the launcher ends, in whatever way.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._seat.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        self._started = time.monotonic()
        self._reader = threading.Thread(target=self._copy_lines, args=(self._process,), daemon=True)
        self._reader.start()

    def _copy_lines(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                sys.stderr.write(self._prefix + line.decode(errors="replace"))
                sys.stderr.flush()

    def reap(self) -> int | None:
        """The exit code of the process if it has ended by now; it is due again after a pause."""
        if self._process is None or self._process.poll() is None:
            return None
        process, self._process = self._process, None
        if process.stdin is not None:
            process.stdin.close()
        if self._reader is not None:
            self._reader.join(timeout=2)
        if time.monotonic() - self._started > HEALTHY_AFTER_S:
            self._next_pause_s = FIRST_PAUSE_S
        self.pause_s = self._next_pause_s
        self._next_pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
        self._due = time.monotonic() + self.pause_s
        return process.returncode

    @property
    def running(self) -> bool:
        return self._process is not None

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class Launcher:
    """`run` blocks until a signal ends it. The first one drains, the second hurries, then all are killed."""

    def __init__(self, seats: Sequence[Seat], drain_s: float, *, allow_download: bool = False) -> None:
        names = _names(seats)
        width = max(map(len, names))
        self._children = [
            Child(seat, name, width, seat.environment(allow_download=allow_download))
            for seat, name in zip(seats, names, strict=True)
        ]
        self._drain_s = drain_s
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put is safe in a handler

    def run(self) -> int:
        """The exit code: 0 after a drain in good order, 1 if a process had to be killed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda got, _frame: self._signals.put(got))
        while not self._signal_within(0.2):
            for child in self._children:
                code = child.reap()
                if code is not None:
                    logger.error(
                        "The node on %s ended (%d); next start in %.0f s", child.name, code, child.pause_s
                    )
                child.start_when_due()
        return self._end()

    def _signal_within(self, seconds: float) -> bool:
        try:
            self._signals.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _end(self) -> int:
        logger.info("Leaving: the nodes finish what they have begun (again Ctrl-C: at once)")
        for number, patience_s in ((signal.SIGTERM, self._drain_s + LEAVE_S), (signal.SIGTERM, HURRY_S)):
            self._send(number)
            if self._all_ended_within(patience_s):
                return 0
        logger.error("Killing the nodes that are left")
        self._send(signal.SIGKILL)
        self._all_ended_within(5)
        return 1

    def _send(self, number: int) -> None:
        for child in self._children:
            child.send(number)

    def _all_ended_within(self, seconds: float) -> bool:
        """Waits for the processes, or until the next signal."""
        until = time.monotonic() + seconds
        while any(child.running for child in self._children):
            for child in self._children:
                child.reap()
            if time.monotonic() > until or self._signal_within(0.05):
                break
        return not any(child.running for child in self._children)


def _names(seats: Sequence[Seat]) -> list[str]:
    """What each is called in the log: its slot, and where two engines share one, the engine as well."""
    slots = [seat.slot.name for seat in seats]
    return [
        seat.slot.name if slots.count(seat.slot.name) == 1 else f"{seat.engine}-{seat.slot.name}"
        for seat in seats
    ]

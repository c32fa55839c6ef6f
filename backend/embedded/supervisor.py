"""A tree of processes in the foreground: started, watched, restarted, and ended without a trace.

Everything happens in the main thread, in one loop over a selector: output of the parts, signals, the ends of
children. Each part leads a session of its own, so that the terminal's Ctrl-C reaches `up` alone.
"""

import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Self

from backend.embedded.part import Part, PartFailed, Process, Say

MAX_FAILED_STARTS = 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_AFTER_S = 10.0  # who lived this long and ends is started again soon
CHECK_EVERY_S = 0.2
LOOK_AGAIN_S = 5.0  # where nothing wakes us: signals and output do


class _Slot:
    """One part's place in the tree, over all its restarts."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.process: Process | None = None
        self.ready = False
        self.failed_starts = 0  # ends in a row before it was ever ready
        self.quick_ends = 0  # ends in a row that came soon after the start
        self.started = 0.0  # monotonic
        self.restart_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive


class Supervisor:
    """Runs parts. Use it as a context manager, in the main thread; leaving it ends what is still running."""

    def __init__(self, say: Say, *, lifeline: int | None = None, lock: int | None = None) -> None:
        """`say` gets each line of output. `lifeline` is a descriptor: when it closes, a stop is requested.
        `lock` is one that stays open until the last process is gone, even if this one is killed."""
        self._say = say
        self._lifeline = lifeline
        self._lock = () if lock is None else (lock,)
        self._mark = secrets.token_hex(8)
        self._started = 0  # processes, so far
        self._slots: list[_Slot] = []
        self._interrupts = 0
        self._signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)

    @property
    def stopping(self) -> bool:
        """True once a signal, or the end of the lifeline, has asked for the end."""
        return self._interrupts > 0

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        if self._lifeline is not None:
            self._selector.register(self._lifeline, selectors.EVENT_READ)
        self._old_handlers = [signal.signal(number, self._on_signal) for number in self._signals]
        self._old_wake = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._guardian = _start_guardian(self._mark, self._lock)
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            self._end(slot)
        assert self._guardian.stdin
        with suppress(OSError):
            self._guardian.stdin.close()
        self._guardian.wait()
        signal.set_wakeup_fd(self._old_wake)
        for number, handler in zip(self._signals, self._old_handlers, strict=True):
            signal.signal(number, handler)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # -- up -------------------------------------------------------------------------------------------

    def start(self, parts: Sequence[Part]) -> bool:
        """Starts the parts together and waits until all are ready. False if a stop was requested meanwhile.

        Raises `PartFailed` with the part's last words when one keeps dying, or is not ready in time.
        """
        begun = [_Slot(part) for part in parts]
        self._slots += begun
        for slot in begun:
            self._spawn(slot)
        while not self.stopping and not all(slot.ready for slot in begun):
            self._tick()
        return not self.stopping

    def watch(self) -> None:
        """Keeps the parts running until a stop is requested. Raises `PartFailed` as `start` does."""
        while not self.stopping:
            self._tick()

    def _tick(self) -> None:
        settled = all(slot.ready for slot in self._slots)
        self._pump(LOOK_AGAIN_S if settled else CHECK_EVERY_S)
        for slot in self._slots:
            if self.stopping:
                return
            self._see_to(slot)
        self._see_to_guardian()

    def _see_to(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is None:
            if slot.restart_at is not None and now >= slot.restart_at:
                self._spawn(slot)
        elif not slot.process.alive:
            self._ended(slot, slot.process)
        elif not slot.ready:
            self._look_whether_ready(slot, slot.process, now)

    def _look_whether_ready(self, slot: _Slot, process: Process, now: float) -> None:
        if slot.part.ready():
            slot.ready, slot.failed_starts = True, 0
        elif now - slot.started > slot.part.ready_within_s:
            within = f"{slot.part.ready_within_s:.0f} s"
            raise PartFailed(f"{slot.part.name} was not ready within {within}.{process.last_words()}")

    def _spawn(self, slot: _Slot) -> None:
        self._started += 1
        slot.process = Process(slot.part, self._say, f"{self._mark}.{self._started};")
        self._tell_guardian(f"+{slot.process.pid} {slot.part.stage}")
        slot.started, slot.restart_at, slot.ready = time.monotonic(), None, False
        self._selector.register(slot.process.output, selectors.EVENT_READ, slot.process)

    def _ended(self, slot: _Slot, process: Process) -> None:
        """An end that nobody asked for: again after a pause, unless it never gets anywhere."""
        how, name = process.how_it_ended(), slot.part.name
        lived_s = time.monotonic() - slot.started
        slot.quick_ends = slot.quick_ends + 1 if lived_s < STABLE_AFTER_S else 0
        slot.failed_starts += not slot.ready
        self._end(slot)
        if slot.failed_starts >= MAX_FAILED_STARTS:
            raise PartFailed(f"{name} keeps ending at its start ({how}).{process.last_words()}")
        pause = min(FIRST_PAUSE_S * 2**slot.quick_ends, LONGEST_PAUSE_S)
        slot.restart_at, slot.ready = time.monotonic() + pause, False
        self._say(name, f"ended ({how}); starting it again in {pause:.1f} s")

    # -- down -----------------------------------------------------------------------------------------

    def stop(self, stage: int, *, within_s: float) -> None:
        """SIGTERM to this stage's parts, time to finish, then SIGKILL; a second interrupt kills at once."""
        going = [slot for slot in self._slots if slot.part.stage == stage]
        for slot in going:
            if slot.process and slot.process.alive:
                slot.process.terminate()
        deadline = time.monotonic() + within_s
        while any(slot.alive for slot in going) and self._interrupts < 2 and time.monotonic() < deadline:
            self._pump(CHECK_EVERY_S)
        for slot in going:
            if slot.alive:
                self._say(slot.part.name, "does not end by itself: killed")
            self._end(slot)
            self._slots.remove(slot)

    def _end(self, slot: _Slot) -> None:
        process, slot.process = slot.process, None
        if process is None:
            return
        if process.output in self._selector.get_map():
            self._selector.unregister(process.output)
        process.kill()
        self._tell_guardian(f"-{process.pid}")

    # -- the loop -------------------------------------------------------------------------------------

    def _pump(self, timeout_s: float) -> None:
        """Waits for output, a signal, or the time; passes output on."""
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._wake_read:
                os.read(self._wake_read, 1024)
            elif key.fd == self._lifeline:
                self._read_lifeline(key.fd)
            elif not key.data.read():
                self._selector.unregister(key.fileobj)

    def _read_lifeline(self, lifeline: int) -> None:
        if not os.read(lifeline, 1024):
            self._selector.unregister(lifeline)
            self._interrupts += 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._interrupts += 1

    # -- the guardian ---------------------------------------------------------------------------------

    def _tell_guardian(self, line: str) -> None:
        assert self._guardian.stdin
        with suppress(OSError):  # it was killed: `_see_to_guardian` starts another, with the whole list
            self._guardian.stdin.write(line + "\n")
            self._guardian.stdin.flush()

    def _see_to_guardian(self) -> None:
        if self._guardian.poll() is None:
            return
        if self._guardian.stdin:
            with suppress(OSError):
                self._guardian.stdin.close()
        self._guardian = _start_guardian(self._mark, self._lock)
        for slot in self._slots:
            if slot.process:
                self._tell_guardian(f"+{slot.process.pid} {slot.part.stage}")


def _start_guardian(mark: str, pass_fds: tuple[int, ...]) -> "subprocess.Popen[str]":
    script = Path(__file__).with_name("guardian.py")
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-I", "-S", str(script), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=pass_fds,
        text=True,
    )

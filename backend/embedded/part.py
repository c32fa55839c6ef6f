"""One process of the tree: how it is started, heard, ended."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backend.embedded import guardian
from backend.errors import FanfareError

Say = Callable[[str, str], None]  # (name of the part, one line of its output)

TAIL_LINES = 20


class PartFailed(FanfareError):
    """A part of the stack does not come up."""

    code = "part_failed"


@dataclass(frozen=True)
class Part:
    """What to run, and how to know that it works."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  # the whole environment; secrets go here, never into argv
    ready: Callable[[], bool]  # must answer within a second or so, and raise nothing
    pass_fds: tuple[int, ...] = ()
    stage: int = 0  # of the end: those of a lower one are ended first, with the others still there
    ready_within_s: float = 90


class Process:
    """A running part. It leads a session of its own and bears a mark: what it starts can be ended with it."""

    def __init__(self, part: Part, say: Say, mark: str) -> None:
        """Starts it. `mark` is unlike any other process's. Raises `PartFailed` where the system can't."""
        self.part = part
        self._mark = mark
        self._say = say
        self._pending = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own programs
                part.argv,
                env=dict(part.env) | {guardian.MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=part.pass_fds,
            )
        except OSError as exc:
            raise PartFailed(f"{part.name} can't be started: {exc}") from exc
        assert self._popen.stdout
        self.output = self._popen.stdout
        os.set_blocking(self.output.fileno(), False)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def terminate(self) -> None:
        """Asks the leader, and only it, to finish: it knows what to do with its children."""
        self._popen.terminate()

    def kill(self) -> None:
        """Ends it and whatever it has left behind; passes on its last words."""
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, only zombies are left
            os.killpg(self.pid, signal.SIGKILL)
        guardian.kill_marked(self._mark)
        self._popen.wait()
        self.read()
        if self._pending:
            self._line(self._pending)
        self.output.close()

    def read(self) -> bool:
        """Passes on what it has said. False once there will be no more."""
        while True:
            try:
                data = os.read(self.output.fileno(), 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        self._say(self.part.name, text)

    def how_it_ended(self) -> str:
        """The exit code, or the name of the signal."""
        code = self._popen.returncode
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def last_words(self) -> str:
        """The end of its output, to be put after a sentence."""
        if not self._tail:
            return " It said nothing."
        return " Its last words:\n" + "\n".join(f"  {line}" for line in self._tail)

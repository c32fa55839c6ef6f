"""Processes that don't outlive the test run, even one that is killed."""

import secrets
import subprocess
import sys
from types import TracebackType
from typing import Self

MARK = "_TEST_LEASH"  # environment variable

# Reads "+group" and "-group"; when the other end is gone, kills what is still on the list, and whoever bears
# the mark in its environment (Linux): a child that has left its group, and may be stopped.
_HOLDER = """
import contextlib, os, pathlib, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    change = groups.add if line[0] == "+" else groups.discard
    change(int(line[1:]))
for group in groups:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        if sys.argv[1].encode() in (folder / "environ").read_bytes().split(b"\\0"):
            os.kill(int(folder.name), signal.SIGKILL)
"""


class Leash:
    """Kills the groups that it holds, and who bears its mark, when it is closed or this process is gone."""

    def __init__(self) -> None:
        self.mark = {MARK: secrets.token_hex(16)}
        self._holder = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HOLDER, f"{MARK}={self.mark[MARK]}"],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def hold(self, group: int) -> None:
        """From now on."""
        self._say(f"+{group}\n")

    def release(self, group: int) -> None:
        """It has ended: its number may soon be somebody else's."""
        self._say(f"-{group}\n")

    def _say(self, line: str) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.write(line)
        self._holder.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()  # closes the pipe

"""The last one out: a tiny process that ends the stack when `fanfare up` itself is killed.

Runs as a script (`python -I -S guardian.py`), with nothing but the standard library. Its standard input is
a pipe from `up`: "+<pid>" when a part was started, "-<pid>" when it has ended. When the pipe closes, what is
still on the list is ended, with its children: each part leads a process group of its own.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

GRACE_S = 5.0


def main() -> None:
    """Follows the list until the pipe closes, then ends what is on it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    leaders: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            leaders.add(pid)
        else:
            leaders.discard(pid)
    end_groups(leaders, grace_s=GRACE_S)


def end_groups(leaders: set[int], *, grace_s: float) -> None:
    """SIGTERM to each leader, time to finish, then SIGKILL to what is left of each group."""
    for pid in leaders:
        _send(os.kill, pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(_send(os.killpg, pid, 0) for pid in leaders):
        time.sleep(0.05)
    for pid in leaders:
        _send(os.killpg, pid, signal.SIGKILL)


def _send(call: Callable[[int, int], None], pid: int, number: int) -> bool:
    """True if there was someone to send it to."""
    try:
        call(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()

"""The last one out: a tiny process that ends the stack when `fanfare up` itself is killed.

Runs as a script (`python -I -S guardian.py MARK`), with nothing but the standard library. Its standard input
is a pipe from `up`: "+<pid> <stage>" when a part was started, "-<pid>" when it has ended. When the pipe
closes, what is still on the list is ended, stage after stage, with all its descendants. These are known by
their process group, and, where they have left it, by a mark in their environment (Linux).
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

GRACE_S = 5.0
MARK = "_FANFARE_PART"  # environment variable: <mark of the stack>.<number of the part>
KILL_ROUNDS = 10  # who forks while being killed is found in the next one


def main() -> None:
    """Follows the list until the pipe closes, then ends what is on it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    stages: dict[int, int] = {}
    for line in sys.stdin:
        pid, _, stage = line[1:].partition(" ")
        if line.startswith("+"):
            stages[int(pid)] = int(stage)
        else:
            stages.pop(int(pid), None)
    for stage in sorted(set(stages.values())):
        end_groups({pid for pid in stages if stages[pid] == stage}, grace_s=GRACE_S)
    kill_marked(sys.argv[1] + ".")


def end_groups(leaders: set[int], *, grace_s: float) -> None:
    """SIGTERM to each leader, time to finish, then SIGKILL to what is left of each group."""
    for pid in leaders:
        _send(os.kill, pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(_send(os.killpg, pid, 0) for pid in leaders):
        time.sleep(0.05)
    for pid in leaders:
        _send(os.killpg, pid, signal.SIGKILL)


def kill_marked(mark: str) -> None:
    """SIGKILL to every process whose mark begins so, whatever session it has moved to."""
    for _ in range(KILL_ROUNDS):
        found = [pid for pid in _marked(f"{MARK}={mark}".encode()) if _send(os.kill, pid, signal.SIGKILL)]
        if not found:
            return
        time.sleep(0.02)


def _marked(entry: bytes) -> list[int]:
    """Processes of ours with this in their environment; zombies have none. Empty where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if any(variable.startswith(entry) for variable in environment.split(b"\0")):
            found.append(int(folder.name))
    return found


def _send(call: Callable[[int, int], None], pid: int, number: int) -> bool:
    """True if there was someone to send it to."""
    try:
        call(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()

"""The process tree, with small real processes: nothing is left of it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.embedded import guardian
from backend.embedded.part import Part, PartFailed
from backend.embedded.supervisor import Supervisor

# Lines are written by one call each: several processes write to the same pipe.
SLEEPER = r"import os, time; os.write(1, b'up\n'); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = f"""
import os, subprocess, sys, time
for apart in (False, True):  # one in our process group, one in a session of its own
    child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=apart)
    os.write(1, f'child {{child.pid}}\\n'.encode())
time.sleep(600)
"""
FINISHES = """
import os, signal, sys, time
def finish(*_):
    os.write(1, b'finishing\\n'); time.sleep(0.3); os.write(1, b'finished\\n'); sys.exit(0)
signal.signal(signal.SIGTERM, finish)
os.write(1, b'up\\n')
time.sleep(600)
"""


class Heard:
    """What the parts have said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def said(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)


def part(name: str, code: str, ready: Callable[[], bool] = lambda: True, **more: float) -> Part:
    return Part(name, (sys.executable, "-c", code), dict(os.environ), ready, **more)  # type: ignore[arg-type]


def exists(pid: int) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def supervisor(heard: Heard) -> Iterator[Supervisor]:
    with Supervisor(heard) as supervisor:
        yield supervisor


def pid_of(supervisor: Supervisor, name: str) -> int:
    slot = next(slot for slot in supervisor._slots if slot.part.name == name)
    assert slot.process
    return slot.process.pid


def test_start_returns_once_all_are_ready(supervisor: Supervisor, heard: Heard) -> None:
    started = supervisor.start([part("one", SLEEPER, lambda: heard.said("up"))])

    assert started
    assert heard.lines == [("one", "up")]


def test_stop_lets_a_part_finish(supervisor: Supervisor, heard: Heard) -> None:
    supervisor.start([part("one", FINISHES, lambda: heard.said("up"))])

    supervisor.stop(0, within_s=10)

    assert heard.lines[-1] == ("one", "finished")


def test_stop_leaves_the_parts_of_a_later_stage(supervisor: Supervisor, heard: Heard) -> None:
    supervisor.start([part("first", SLEEPER), part("last", SLEEPER, stage=1)])
    pid = pid_of(supervisor, "last")

    supervisor.stop(0, within_s=5)

    assert [slot.part.name for slot in supervisor._slots] == ["last"]
    assert exists(pid)


def test_stop_kills_a_part_that_does_not_listen(supervisor: Supervisor, heard: Heard) -> None:
    supervisor.start([part("deaf", DEAF, lambda: heard.said("up"))])
    pid = pid_of(supervisor, "deaf")

    supervisor.stop(0, within_s=0.3)

    assert not exists(pid)
    assert heard.said("killed")


def test_stop_takes_the_children_of_a_part_with_it(supervisor: Supervisor, heard: Heard) -> None:
    def children() -> list[int]:
        return [int(line.split()[1]) for _, line in heard.lines if line.startswith("child ")]

    supervisor.start([part("parent", PARENT, lambda: len(children()) == 2)])
    assert all(exists(pid) for pid in children())

    supervisor.stop(0, within_s=5)

    assert eventually(lambda: not any(exists(pid) for pid in children()))


def test_a_part_that_dies_is_started_again(supervisor: Supervisor, heard: Heard) -> None:
    supervisor.start([part("one", SLEEPER, lambda: heard.said("up"))])
    first = pid_of(supervisor, "one")
    os.kill(first, signal.SIGKILL)

    def back() -> bool:
        supervisor._tick()
        slot = supervisor._slots[0]
        return slot.process is not None and slot.process.pid != first and slot.ready

    assert eventually(back)
    assert heard.said("ended (SIGKILL); starting it again")


def test_a_part_that_keeps_dying_is_given_up_with_its_last_words(supervisor: Supervisor) -> None:
    dying = part("bad", "import sys; sys.exit('no such database')", lambda: False)

    with pytest.raises(PartFailed, match=r"(?s)bad keeps ending.*exit code 1.*no such database"):
        supervisor.start([dying])


def test_a_part_that_is_never_ready_is_given_up(supervisor: Supervisor) -> None:
    with pytest.raises(PartFailed, match="not ready within"):
        supervisor.start([part("slow", SLEEPER, lambda: False, ready_within_s=0.5)])


def test_a_program_that_is_not_there_is_told_plainly(supervisor: Supervisor) -> None:
    with pytest.raises(PartFailed, match="can't be started"):
        supervisor.start([Part("none", ("/no/such/program",), {}, lambda: True)])


def test_long_output_without_newline_and_broken_utf8_come_through(
    supervisor: Supervisor, heard: Heard
) -> None:
    code = "import os; os.write(1, b'x' * 200_000 + b'\\xff\\nend')"
    with pytest.raises(PartFailed):
        supervisor.start([part("loud", code, lambda: False)])

    assert ("loud", "x" * 200_000 + "\N{REPLACEMENT CHARACTER}") in heard.lines
    assert ("loud", "end") in heard.lines


def test_leaving_ends_everything_and_gives_the_signals_back(heard: Heard) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Supervisor(heard) as supervisor:
        supervisor.start([part("one", SLEEPER, lambda: heard.said("up"))])
        pid, guardian = pid_of(supervisor, "one"), supervisor._guardian

    assert not exists(pid)
    assert guardian.returncode == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_guardian_that_was_killed_is_replaced_and_told_everything(
    supervisor: Supervisor, heard: Heard
) -> None:
    supervisor.start([part("one", SLEEPER, lambda: heard.said("up"))])
    first = supervisor._guardian
    first.kill()
    first.wait()

    supervisor._see_to_guardian()

    assert supervisor._guardian.pid != first.pid
    assert supervisor._guardian.poll() is None


# -- the supervisor as a process of its own: what signals do to it ------------------------------------

TREE = """
import os, sys
from backend.embedded import guardian
from backend.embedded.part import Part
from backend.embedded.supervisor import Supervisor

def say(name, line):
    sys.stdout.write(f"{name} {line}\\n")  # in one piece: several threads say something
    sys.stdout.flush()

def part(name, code):
    return Part(name, (sys.executable, "-c", code), dict(os.environ), lambda: True)

lifeline = int(sys.argv[1]) if len(sys.argv) > 1 else None
with Supervisor(say, lifeline=lifeline) as supervisor:
    supervisor.start([part("parent", PARENT), part("deaf", DEAF)])
    for slot in supervisor._slots:
        say("pid", str(slot.process.pid))
    say("guardian", str(supervisor._guardian.pid))
    supervisor.watch()
    supervisor.stop(0, within_s=STOP_WITHIN)
    say("end", "stopped")
"""


class Tree:
    """A supervisor in its own process, with a part that has a child and a part that is deaf to SIGTERM."""

    def __init__(self, *, stop_within_s: float, lifeline: bool = False) -> None:
        code = TREE.replace("PARENT", repr(PARENT)).replace("DEAF", repr(DEAF))
        code = code.replace("STOP_WITHIN", str(stop_within_s))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *(["0"] if lifeline else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pids: set[int] = set()
        self.said: list[str] = []
        self._read_until_complete()

    def _read_until_complete(self) -> None:
        assert self.process.stdout
        wanted = {"pid": 2, "guardian": 1, "parent child": 2, "deaf up": 1}
        while any(wanted.values()):
            line = self.process.stdout.readline()
            assert line, "the supervisor ended early"
            kind = next((kind for kind in wanted if line.startswith(kind)), None)
            if kind:
                wanted[kind] -= 1
            if kind and kind != "deaf up":
                self.pids.add(int(line.split()[-1]))

    def all_gone(self) -> bool:
        return eventually(lambda: not any(exists(pid) for pid in self.pids), within_s=15)

    def rest(self) -> str:
        rest, _ = self.process.communicate(timeout=20)
        return rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for pid in self.pids:
            if exists(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def trees() -> Iterator[list[Tree]]:
    opened: list[Tree] = []
    yield opened
    for tree in opened:
        tree.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_whole_tree_in_good_order(trees: list[Tree], number: int) -> None:
    trees.append(tree := Tree(stop_within_s=0.5))

    os.kill(tree.process.pid, number)

    assert "end stopped" in tree.rest()
    assert tree.process.returncode == 0
    assert tree.all_gone()


def test_a_second_interrupt_does_not_wait(trees: list[Tree]) -> None:
    trees.append(tree := Tree(stop_within_s=60))

    os.kill(tree.process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(tree.process.pid, signal.SIGINT)

    assert "end stopped" in tree.rest()
    assert tree.all_gone()


def test_a_killed_supervisor_leaves_no_orphans(trees: list[Tree]) -> None:
    trees.append(tree := Tree(stop_within_s=60))

    os.kill(tree.process.pid, signal.SIGKILL)

    assert tree.all_gone()


def test_the_guardian_ends_a_later_stage_later(tmp_path: Path) -> None:
    # Given a part of stage 0 that needs a moment to finish, and one of stage 1
    first = subprocess.Popen([sys.executable, "-c", FINISHES], stdout=subprocess.PIPE, start_new_session=True)
    last = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, start_new_session=True)
    assert first.stdout and last.stdout  # noqa: PT018 - pipes
    assert first.stdout.readline() == last.stdout.readline() == b"up\n"
    pipe = f"+{last.pid} 1\n+{first.pid} 0\n".encode()

    # When their supervisor is gone
    script = Path(guardian.__file__)
    process = subprocess.Popen([sys.executable, "-I", "-S", str(script), "mark"], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(pipe)
    process.stdin.close()

    # Then the first one finishes while the last one is still there
    assert first.stdout.readline() == b"finishing\n"
    assert last.poll() is None
    assert first.stdout.readline() == b"finished\n"
    assert first.wait(60) == 0
    assert last.wait(60) == -signal.SIGTERM
    assert process.wait(60) == 0
    first.stdout.close()
    last.stdout.close()


def test_the_end_of_the_lifeline_ends_the_tree(trees: list[Tree]) -> None:
    trees.append(tree := Tree(stop_within_s=0.5, lifeline=True))
    assert tree.process.stdin

    tree.process.stdin.close()
    tree.process.stdin = None

    assert "end stopped" in tree.rest()
    assert tree.all_gone()

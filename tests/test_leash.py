"""What a test run starts ends with it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.gpu_worker.processes import alive, eventually
from tests.leash import Leash

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]

# Starts what the leash holds, says its process id, and waits.
RUN = f"""
import subprocess, time
from tests.leash import Leash
leash = Leash()
process = subprocess.Popen({SLEEPER!r}, start_new_session=True)
leash.hold(process.pid)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_a_stopped_process_that_bears_the_mark_ends_too() -> None:
    with Leash() as leash:
        stray = subprocess.Popen(SLEEPER, start_new_session=True, env={**os.environ, **leash.mark})
        stray.send_signal(signal.SIGSTOP)

    assert stray.wait(60) == -signal.SIGKILL


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(SLEEPER, start_new_session=True)


def test_what_is_held_ends_with_a_test_run_that_is_killed() -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE)
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    assert alive(pid)

    run.kill()
    run.communicate()

    eventually(lambda: not alive(pid), what="the sleeper is gone")


def test_what_is_held_ends_with_the_block_and_what_is_released_goes_on() -> None:
    held, released = sleeper(), sleeper()
    with Leash() as leash:
        leash.hold(held.pid)
        leash.hold(released.pid)
        leash.release(released.pid)

    assert held.wait(60) == -signal.SIGKILL
    assert released.poll() is None
    os.killpg(released.pid, signal.SIGKILL)
    released.wait(60)

"""The launcher's part: start, restart with growing pauses, end in good order or by force. Real processes."""

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from gpu_worker.devices import Slot
from gpu_worker.launcher import Seat, _names
from tests.gpu_worker.processes import Running, alive, children_of, eventually

LAUNCH = """
import sys
from gpu_worker import launcher
from gpu_worker.devices import Slot
from gpu_worker.log import set_up_log

launcher.LEAVE_S, launcher.HURRY_S, launcher.FIRST_PAUSE_S = 0.5, 1.0, 0.2

class Script(launcher.Seat):
    def command(self):
        return [sys.executable, "-c", sys.argv[1]]

set_up_log("INFO", [])
seats = [Script("none", Slot("cpu", {"PLACE": "first"})), Script("none", Slot("cuda10", {"PLACE": "second"}))]
raise SystemExit(launcher.Launcher(seats, float(sys.argv[2])).run())
"""
HEEDS_TERM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Celery does with threads
print("up", os.environ["PLACE"], flush=True)
time.sleep(60)
"""
HEEDS_THE_SECOND_TERM = """
import signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0) if heard else heard.append(1))
print("up", flush=True)
while True: time.sleep(0.05)
"""
HEEDS_NOTHING = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
ENDS_WITH_ITS_LAUNCHER = """
import os, sys
print("up", flush=True)
os.read(sys.stdin.fileno(), 1)
"""
FIRST_FALLS = """
import os, sys, time
print("up", os.environ["PLACE"], flush=True)
if os.environ["PLACE"] == "first": sys.exit(70)
time.sleep(60)
"""
TELLS_ITS_ENVIRONMENT = """
import json, os, time
print(json.dumps(dict(os.environ)), "up", flush=True)
time.sleep(60)
"""
FALLS = "print('up', flush=True); raise SystemExit(70)"

Launch = Callable[..., Running]


@pytest.fixture
def launch() -> Iterator[Launch]:
    started: list[Running] = []

    def start(script: str, drain_s: float = 5) -> Running:
        started.append(Running(["-c", LAUNCH, script, str(drain_s)]))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_its_children_in_good_order(launch: Launch, number: int) -> None:
    running = launch(HEEDS_TERM)
    running.says("up", times=2)
    children = children_of(running.pid)

    running.send(number)

    assert running.wait() == 0
    assert len(children) == 2
    assert not any(map(alive, children))
    assert "cpu    | up first" in running.said
    assert "cuda10 | up second" in running.said


def test_a_second_signal_hurries(launch: Launch) -> None:
    running = launch(HEEDS_THE_SECOND_TERM, drain_s=60)
    running.says("up", times=2)

    running.send()
    time.sleep(0.5)
    assert alive(running.pid)
    running.send()

    assert running.wait(5) == 0


def test_who_does_not_end_is_killed(launch: Launch) -> None:
    running = launch(HEEDS_NOTHING, drain_s=0)
    running.says("up", times=2)
    children = children_of(running.pid)

    running.send()

    assert running.wait(60) == 1
    assert not any(map(alive, children))


def test_who_falls_is_started_again_after_growing_pauses(launch: Launch) -> None:
    running = launch(FALLS)

    running.says("up", times=6)

    for pause in ("next start in 0 s", "next start in 1 s"):
        running.says(f"The node on cpu ended (70); {pause}")
    running.send()
    assert running.wait() == 0


def test_one_that_falls_does_not_disturb_the_others(launch: Launch) -> None:
    running = launch(FIRST_FALLS)

    running.says("up first", times=3)

    assert running.said.count("up second") == 1
    assert "cuda10 | up second" in running.said


def test_each_is_told_where_it_is_and_what_its_libraries_may_do(launch: Launch) -> None:
    running = launch(TELLS_ITS_ENVIRONMENT)
    running.says("up", times=2)

    told = [json.loads(line.partition("| ")[2][:-3]) for line in running.said.splitlines()]

    assert sorted(environment["FANFARE_SLOT"] for environment in told) == ["cpu", "cuda10"]
    for environment in told:
        assert environment["DIFFUSERS_DISABLE_REMOTE_CODE"] == "true"
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert environment["TOKENIZERS_PARALLELISM"] == "false"
        assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_the_operator_may_tune_what_does_not_matter_for_safety(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    monkeypatch.setenv("DIFFUSERS_DISABLE_REMOTE_CODE", "false")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    environment = Seat("diffusers", Slot("cuda0")).environment(allow_download=True)
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:512"
    assert environment["DIFFUSERS_DISABLE_REMOTE_CODE"] == "true"
    assert "HF_HUB_OFFLINE" not in environment


def test_two_engines_on_one_device_can_be_told_apart() -> None:
    seats = [Seat("sketch", Slot("cpu")), Seat("diffusers", Slot("cpu")), Seat("openai", Slot("remote"))]
    assert _names(seats) == ["sketch-cpu", "diffusers-cpu", "remote"]


def test_a_killed_launcher_leaves_no_orphans(launch: Launch) -> None:
    running = launch(ENDS_WITH_ITS_LAUNCHER)
    running.says("up", times=2)
    children = children_of(running.pid)

    running.send(signal.SIGKILL)
    running.wait()

    eventually(lambda: not any(map(alive, children)))

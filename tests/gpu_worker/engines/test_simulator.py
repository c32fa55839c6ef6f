"""The simulator: the sketch engine's pictures, and its faults amid them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contract.messages import FailureCode
from gpu_worker.engines.base import Engine, Failure, ImageRequest, Picture
from gpu_worker.engines.sketch import Simulator, SketchEngine
from gpu_worker.engines.sketch.simulator import SimulatedFailure
from gpu_worker.faults import Faults
from tests.gpu_worker.engines.watching import Recorder

ROOT = Path(__file__).parents[3]


def request(attempt: str = "1:1:1") -> ImageRequest:
    return ImageRequest(f"image:{attempt}", "sketch", "a lighthouse", 64, 64, seed=1)


def simulator(faults: str, delay_s: float = 0) -> Simulator:
    return Simulator(Faults.parse(faults), delay_s=delay_s)


def test_keeps_the_port_and_paints_the_same() -> None:
    engine: Engine = simulator("crash=0.0001")

    (outcome,) = engine.generate([request()], Recorder())

    (plain,) = SketchEngine().generate([request()], Recorder())
    assert isinstance(outcome, Picture)
    assert isinstance(plain, Picture)
    assert outcome.image.tobytes() == plain.image.tobytes()
    assert engine.models() == SketchEngine().models()


def test_out_of_memory_amid_the_picture_and_not_in_the_next_attempt() -> None:
    engine, watch = simulator("out_of_memory=0.5"), Recorder()

    outcomes = engine.generate([request(f"1:1:{turn}") for turn in range(30)], watch)

    failed = [outcome.code for outcome in outcomes if isinstance(outcome, Failure)]
    assert set(failed) == {FailureCode.OUT_OF_MEMORY}
    assert 5 < len(failed) < 25
    assert any(0.5 <= seen[-1] < 1 for seen in watch.seen.values())


def test_an_engine_that_fails() -> None:
    with pytest.raises(SimulatedFailure):
        simulator("engine_failed=1").generate([request()], Recorder())


def test_slow_is_ten_times_as_slow_and_can_be_canceled() -> None:
    begun = time.monotonic()
    simulator("slow=1", delay_s=0.05).generate([request()], Recorder())
    assert time.monotonic() - begun >= 0.5

    begun = time.monotonic()
    unwanted = Recorder(unwanted="image:1:1:1", patience=3)
    (outcome,) = simulator("slow=1", delay_s=60).generate([request()], unwanted)
    assert isinstance(outcome, Failure)
    assert time.monotonic() - begun < 5


def test_a_crash_is_the_end_of_the_process() -> None:
    program = (
        "from tests.gpu_worker.engines.test_simulator import *;"
        "simulator('poison=lighthouse').generate([request()], Recorder())"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, check=False)

    assert done.returncode == -signal.SIGKILL


def test_who_hangs_says_nothing_more() -> None:
    watch = Recorder()
    thread = threading.Thread(target=lambda: simulator("hang=1").generate([request()], watch), daemon=True)

    thread.start()

    thread.join(1)
    assert thread.is_alive()
    assert 0.5 <= watch.seen["image:1:1:1"][-1] < 1

"""Batches: who shares one, who comes first, and what happens when the node leaves."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from uuid import uuid4

import pytest

from gpu_worker.batcher import Batcher, Draining, Served, Waiting
from tests.gpu_worker.messages import JOB_A, JOB_B, request
from tests.gpu_worker.solid_engine import SolidEngine


def batcher(engine: SolidEngine | None = None, *, window_s: float = 0, crowd: int = 100) -> Batcher:
    return Batcher(engine or SolidEngine(), window_s=window_s, crowd=crowd)


def prompts(batch: list[Waiting] | None) -> list[str]:
    assert batch is not None
    return [waiting.request.prompt for waiting in batch]


def test_requests_of_one_key_share_a_batch_up_to_its_cap() -> None:
    waiting = batcher(SolidEngine(cap=3))
    for number in range(5):
        waiting.submit(request(str(number)), JOB_A)

    assert prompts(waiting.next_batch()) == ["0", "1", "2"]
    assert prompts(waiting.next_batch()) == ["3", "4"]


def test_requests_of_other_sizes_do_not_share_and_the_oldest_comes_first() -> None:
    waiting = batcher()
    waiting.submit(request("large", width=128), JOB_A)
    waiting.submit(request("small"), JOB_A)
    waiting.submit(request("large too", width=128), JOB_A)

    assert prompts(waiting.next_batch()) == ["large", "large too"]
    assert prompts(waiting.next_batch()) == ["small"]


def test_jobs_take_turns_within_a_key() -> None:
    waiting = batcher(SolidEngine(cap=2))
    for number in range(4):
        waiting.submit(request(f"a{number}"), JOB_A)
    waiting.submit(request("b0"), JOB_B)

    batches = [prompts(waiting.next_batch()) for _ in range(3)]

    assert batches == [["a0", "b0"], ["a1", "a2"], ["a3"]]


def test_jobs_take_turns_over_all_keys() -> None:
    waiting = batcher(SolidEngine(cap=2))
    for number in range(6):
        waiting.submit(request(f"a{number}"), JOB_A)
    for number in range(2):
        waiting.submit(request(f"b{number}", width=128), JOB_B)

    batches = [prompts(waiting.next_batch()) for _ in range(4)]

    assert batches == [["a0", "a1"], ["b0", "b1"], ["a2", "a3"], ["a4", "a5"]]


def test_a_large_job_is_not_starved_by_new_ones() -> None:
    waiting = batcher(SolidEngine(cap=1))
    for number in range(3):
        waiting.submit(request(f"a{number}"), JOB_A)
    served: list[str] = []
    for number in range(6):
        waiting.submit(request(f"new{number}", width=128 + 8 * number), uuid4())
        served += prompts(waiting.next_batch())

    assert [prompt for prompt in served if prompt.startswith("a")] == ["a0", "a1", "a2"]


def test_who_is_suspected_goes_alone() -> None:
    waiting = batcher()
    waiting.submit(request("suspect"), JOB_A, alone=True)
    waiting.submit(request("suspect too"), JOB_A, alone=True)
    waiting.submit(request("other"), JOB_A)

    assert [len(waiting.next_batch() or []) for _ in range(3)] == [1, 1, 1]


def test_a_loaded_model_is_preferred_until_patience_ends() -> None:
    patient = Batcher(SolidEngine(), window_s=0, crowd=9, patience_s=60)
    impatient = Batcher(SolidEngine(), window_s=0, crowd=9, patience_s=0)
    for waiting in (patient, impatient):
        waiting.submit(request("cold", model="other"), JOB_A)
        waiting.submit(request("warm"), JOB_A)

    assert prompts(patient.next_batch()) == ["warm"]
    assert prompts(impatient.next_batch()) == ["cold"]


def test_a_model_that_is_being_made_ready_holds_up_nobody() -> None:
    engine = SolidEngine()
    engine.not_ready = {"other"}
    waiting = Batcher(engine, window_s=0, crowd=9, patience_s=0)
    waiting.submit(request("cold", model="other"), JOB_A)
    waiting.submit(request("warm"), JOB_A)

    assert prompts(waiting.next_batch()) == ["warm"]
    ready = threading.Timer(0.2, engine.not_ready.clear)
    ready.start()
    assert prompts(waiting.next_batch()) == ["cold"]
    ready.join()


def test_models_in_demand_change_places_seldom() -> None:
    engine = SolidEngine(cap=1)
    waiting = Batcher(engine, window_s=0, crowd=99, patience_s=0.3)
    served: list[str] = []
    begun = time.monotonic()
    for number in range(60):
        waiting.submit(request(str(number), model=("solid", "other")[number % 2]), JOB_A)
    while len(waiting):
        batch = waiting.next_batch()
        assert batch is not None
        engine.warm = (batch[0].request.model,)
        served += engine.warm
        time.sleep(0.02)

    changes = sum(one != other for one, other in pairwise(served))
    assert 2 <= changes <= (time.monotonic() - begun) / 0.3 + 2  # 1.2 s of work, or more; 0.3 s of patience


def seconds(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def test_a_batch_is_held_open_for_a_late_comer() -> None:
    waiting = batcher(SolidEngine(cap=2), window_s=5)
    waiting.submit(request("first"), JOB_A)
    late = threading.Timer(0.1, lambda: waiting.submit(request("late"), JOB_B))
    late.start()

    assert prompts(waiting.next_batch()) == ["first", "late"]
    late.join()


def test_a_batch_is_not_held_open_longer_than_the_window() -> None:
    waiting = batcher(SolidEngine(cap=2), window_s=0.15)
    waiting.submit(request(), JOB_A)

    assert 0.1 < seconds(waiting.next_batch) < 8


@pytest.mark.parametrize(("cap", "crowd"), [(1, 100), (4, 1)], ids=["no room", "nobody else can come"])
def test_a_batch_is_not_held_open_where_that_is_of_no_use(cap: int, crowd: int) -> None:
    waiting = batcher(SolidEngine(cap=cap), window_s=10, crowd=crowd)
    waiting.submit(request(), JOB_A)

    assert seconds(waiting.next_batch) < 8


def test_who_was_canceled_in_the_line_is_left_out() -> None:
    waiting = batcher()
    gone = waiting.submit(request("gone"), JOB_A)
    waiting.submit(request("here"), JOB_A)
    gone.cancel()

    assert prompts(waiting.next_batch()) == ["here"]


def test_a_line_of_canceled_requests_does_not_end_the_waiting() -> None:
    waiting = batcher()
    waiting.submit(request("gone"), JOB_A).cancel()
    late = threading.Timer(0.1, lambda: waiting.submit(request("here"), JOB_A))
    late.start()

    assert prompts(waiting.next_batch()) == ["here"]
    late.join()


def test_closing_hands_back_what_waits_and_takes_no_more() -> None:
    waiting = batcher(SolidEngine(cap=1))
    begun: Future[Served] = waiting.submit(request("begun"), JOB_A)
    left: Future[Served] = waiting.submit(request("left"), uuid4())
    waiting.next_batch()

    waiting.close()

    assert isinstance(left.exception(timeout=0), Draining)
    assert not begun.done()
    assert waiting.next_batch() is None
    with pytest.raises(Draining):
        waiting.submit(request(), JOB_A)


def test_closing_wakes_the_engine_thread() -> None:
    waiting = batcher()
    closer = threading.Timer(0.1, waiting.close)
    closer.start()

    assert waiting.next_batch() is None
    closer.join()


def test_many_threads_lose_nothing() -> None:
    waiting = batcher(SolidEngine(cap=8))
    total = 400

    def submit(start: int) -> None:
        for number in range(start, total, 4):
            waiting.submit(request(str(number)), uuid4())

    threads = [threading.Thread(target=submit, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    taken: list[str] = []
    while len(taken) < total:
        taken += prompts(waiting.next_batch())
    for thread in threads:
        thread.join()

    assert sorted(taken, key=int) == [str(number) for number in range(total)]

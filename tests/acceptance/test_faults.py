"""Each part killed or away at a bad moment: the job ends well all the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.brokers import BROKERS, Broker, own_broker
from tests.acceptance.stack import Stack, stack
from tests.services import redis_server


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The broker of this test alone."""
    with own_broker(request.param, request) as made:
        yield made


@pytest.fixture
def system(broker: Broker, postgres_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A system of the test's own, quick to notice what is lost."""
    with stack(
        tmp_path,
        **broker.env,
        FANFARE_DATABASE_URL=postgres_url,
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_REDISPATCH_AFTER_S="4",
    ) as made:
        yield made


def test_a_broker_that_is_away_at_submit(system: Stack, broker: Broker) -> None:
    # Given a running system whose broker stops
    system.start_all()
    broker.stop()
    # When a message is sent, then it is accepted
    task_id = system.submit(count=2)
    assert system.job(task_id)["waiting_for"]["reason"] == "broker"
    # And when the broker is back, the images are made
    broker.start()
    assert system.ended(task_id)["status"] == "completed"


def test_a_node_that_is_killed(system: Stack) -> None:
    # Given a node that dies amid its images
    system.start_all(FANFARE_SKETCH_DELAY_S="2")
    task_id = system.submit(count=3)
    system.until(lambda: any(i["status"] == "in_progress" for i in system.job(task_id)["images"]))
    system.parts[-1].kill()
    # When another node comes
    system.start("node")
    # Then the job ends, with each image once
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", 3)
    types = [name for _, name in system.events(task_id)]
    assert types.count("image.generated") == 3


def test_a_node_that_is_told_to_go(system: Stack) -> None:
    # Given a node amid its images
    system.start_all(FANFARE_SKETCH_DELAY_S="1", FANFARE_NODE_CONCURRENCY="2")
    task_id = system.submit(count=6)
    system.until(lambda: any(i["status"] == "in_progress" for i in system.job(task_id)["images"]))
    # When it is told to go, then it ends cleanly and hands back what it had not begun
    assert system.parts[-1].stop() == 0
    assert httpx.get(f"{system.url}/v1/workers").json()["results"] == []
    system.start("node")
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", 6)


def test_a_cpu_worker_that_is_killed(system: Stack) -> None:
    # Given a job whose images are being made
    system.start_all(FANFARE_SKETCH_DELAY_S="1")
    task_id = system.submit(count=4)
    system.until(lambda: any(i["status"] == "in_progress" for i in system.job(task_id)["images"]))
    # When the worker that would save them dies, and another comes
    system.parts[1].kill()
    system.start("worker")
    assert system.ended(task_id)["status"] == "completed"


def test_an_api_that_is_killed(system: Stack) -> None:
    system.start_all()
    task_id = system.submit(count=2)
    system.parts[0].kill()
    system.start("api")
    system.wait_until_ready()
    assert system.ended(task_id)["status"] == "completed"


def test_a_broker_that_forgets_everything(system: Stack, broker: Broker) -> None:
    # Given a job that waits for a node, in a broker that is flushed
    system.start("api")
    system.start("worker")
    system.wait_until_ready()
    task_id = system.submit(count=2)
    system.until(lambda: system.waiting_in("gpu.sketch") == 2)  # its rows are there before its messages
    assert system.job(task_id)["waiting_for"]["reason"] == "no_worker_for_model"
    broker.forget_everything()
    # When a node comes, then the database has kept what the broker lost
    system.start("node")
    assert system.ended(task_id)["status"] == "completed"


def test_a_broker_that_restarts_keeps_what_waits(system: Stack, broker: Broker) -> None:
    # Given a job that waits for a node, and a sweep that would not notice its loss
    system.env["FANFARE_REDISPATCH_AFTER_S"] = "3600"
    system.start("api")
    system.start("worker")
    system.wait_until_ready()
    task_id = system.submit(count=2)
    system.until(lambda: system.waiting_in("gpu.sketch") == 2)  # its rows are there before its messages
    # When the broker ends, and comes again, then what waited in it waits there still
    broker.stop()
    broker.start()
    system.start("node")
    assert system.ended(task_id)["status"] == "completed"


def test_a_redis_without_append_only_file_restarts(postgres_url: str, tmp_path: Path) -> None:
    # Given images in hand, and a broker that keeps nothing
    with (
        redis_server(appendonly=False) as server,
        stack(
            tmp_path,
            FANFARE_BROKER_URL=server.url(),
            FANFARE_DATABASE_URL=postgres_url,
            FANFARE_SWEEP_INTERVAL_S="1",
            FANFARE_REDISPATCH_AFTER_S="4",
            FANFARE_SKETCH_DELAY_S="0.5",
            FANFARE_NODE_CONCURRENCY="1",
        ) as system,
    ):
        system.start_all()
        task_ids = [system.submit(count=3) for _ in range(3)]
        system.until(lambda: any(i["status"] == "in_progress" for i in system.job(task_ids[0])["images"]))
        # When it restarts
        server.service.stop()
        server.service.start()
        # Then the sweep sends again what was lost
        for task_id in task_ids:
            job = system.ended(task_id)
            assert job["status"] == "completed", f"{job['error']}\n{system.logs()}"


def test_cancel_amid(system: Stack) -> None:
    system.start_all(FANFARE_SKETCH_DELAY_S="120")
    task_id = system.submit(count=4)
    system.until(lambda: any(i["status"] == "in_progress" for i in system.job(task_id)["images"]))
    answer = httpx.post(f"{system.url}/v1/jobs/{task_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    # the node is free again at once, long before the images would have been done
    started = time.monotonic()
    system.until(
        lambda: all(w["running"] == 0 for w in httpx.get(f"{system.url}/v1/workers").json()["results"]), 60
    )
    assert time.monotonic() - started < 60
    assert system.job(task_id)["status"] == "canceled"


def test_nothing_is_left_running(system: Stack) -> None:
    system.start_all()
    system.ended(system.submit(count=1))
    for part in reversed(system.parts):
        assert part.stop() == 0, part.name
    assert [line for part in system.parts for line in part.left_running()] == []


def test_an_upload_that_is_refused_is_signed_anew_a_few_times(system: Stack) -> None:
    # Given a worker whose signatures the API doesn't accept (as they are when they have expired)
    system.start("api", FANFARE_SECRET_KEY="a" * 32)
    worker = system.start("worker", FANFARE_SECRET_KEY="b" * 32)
    system.start("node")
    system.wait_until_ready()
    # When its images can't be stored, then they are made anew with new URLs, but not for ever
    task_id = system.submit(count=2)
    job = system.ended(task_id)
    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == (
        "failed",
        "upload_expired",
        True,
    )
    types = [name for _, name in system.events(task_id)]
    assert types.count("image.started") == 6, types
    # And with the right key, retry makes them
    worker.stop()
    system.start("worker", FANFARE_SECRET_KEY="a" * 32)
    assert httpx.post(f"{system.url}/v1/jobs/{task_id}/retry").status_code == 202
    assert system.ended(task_id)["status"] == "completed"


def test_delete_amid(system: Stack) -> None:
    # Given a job amid its images
    system.start_all(FANFARE_SKETCH_DELAY_S="2")
    task_id = system.submit(count=3)
    system.until(lambda: any(i["status"] == "completed" or i["url"] for i in system.job(task_id)["images"]))
    # When it is deleted, then it is gone at once, its nodes stop, and nothing of it stays
    assert httpx.delete(f"{system.url}/v1/jobs/{task_id}").status_code == 204
    assert httpx.get(f"{system.url}/v1/jobs/{task_id}").status_code == 404
    system.until(
        lambda: all(w["running"] == 0 for w in httpx.get(f"{system.url}/v1/workers").json()["results"]), 60
    )
    assert [path for path in (system.folder / "files").rglob("*") if path.is_file()] == []
    # And the next job is served as ever
    assert system.ended(system.submit(count=1))["status"] == "completed"


def test_nobody_who_could_make_it(system: Stack) -> None:
    # Given a system without a node
    system.start("api", FANFARE_JOB_DEADLINE_S="10")
    system.start("worker")
    system.wait_until_ready()
    # When the deadline passes, then the job says why, and that it may be tried again
    job = system.ended(system.submit(count=2))
    assert (job["status"], job["error"]["code"], job["error"]["retryable"]) == (
        "failed",
        "no_worker_for_model",
        True,
    )

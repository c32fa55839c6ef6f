"""Nodes that run diffusers killed, sent away and started again amid a batch: each image is made, once."""

import importlib.util
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import Part, Stack, stack
from tests.gpu_worker.processes import children_of
from tests.services import RedisServer, missing

MODEL = "tiny-sdxl"
LONG: dict[str, Any] = {
    "model": MODEL,
    "width": 128,
    "height": 128,
    "steps": 100,
}  # a batch of 4 takes a second or two
STRICT: dict[str, Any] = {
    "model": MODEL,
    "width": 64,
    "height": 64,
    "count": 1,
    "seed": 5,
    "reproducible": True,
}


@pytest.fixture(scope="module")
def system(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API and worker; each test starts the nodes that it kills."""
    absent = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if absent:
        missing(f"no {', '.join(absent)}: the extra `gpu` is not installed")
    from tests.acceptance.tiny_catalog import write_catalog

    catalog = write_catalog(tmp_path_factory.mktemp("catalog"), families={MODEL: "sdxl"})
    with stack(
        tmp_path_factory.mktemp("stack-diffusers-faults"),
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_NODE_ENGINES="diffusers",
        FANFARE_NODE_DEVICES="cpu",
        FANFARE_NODE_CATALOG=str(catalog),
        FANFARE_DEFAULT_MODEL=MODEL,
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_REDISPATCH_AFTER_S="4",
        FANFARE_NODE_DRAIN_S="60",
        OMP_NUM_THREADS="1",
    ) as made:
        made.start("api")
        made.start("worker")
        made.wait_until_ready()
        yield made


@pytest.fixture
def node(system: Stack) -> Part:
    """The only node: the one that the test before has left, or a new one."""
    left = [part for part in system.parts if part.name == "node" and part.process.poll() is None]
    return left[-1] if left else new_node(system)


@pytest.fixture(scope="module", autouse=True)
def first(system: Stack) -> dict[str, Any]:
    """The first image of a fresh node."""
    new_node(system)
    return one_image(system)


def new_node(system: Stack) -> Part:
    """One more, ready."""
    name = f"node-{len(system.parts)}/"
    part = system.start("node")
    system.until(lambda: any(one["name"].startswith(name) and one["state"] == "ready"
                             for one in workers(system)))  # fmt: skip
    return part


def workers(system: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{system.url}/v1/workers").json()["results"]
    return found


def one_image(system: Stack) -> dict[str, Any]:
    """The same each time, whichever node makes it."""
    (image,) = system.ended(system.submit(**STRICT))["images"]
    return dict(image)


def amid(system: Stack, count: int) -> str:
    """A job of which some steps are made, and no image."""
    task_id = system.submit(count=count, **LONG)
    system.until(lambda: system.job(task_id)["progress"]["fraction"] > 0)
    assert system.job(task_id)["progress"]["completed"] == 0
    return task_id


def all_made_once(system: Stack, task_id: str, count: int) -> list[dict[str, Any]]:
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", count), job
    types = Counter(name for _, name in system.events(task_id))
    assert types["image.generated"] == types["image.completed"] == count, types
    images: list[dict[str, Any]] = job["images"]
    assert len({image["sha256"] for image in images}) == count
    for image in images:
        assert httpx.get(image["url"]).status_code == 200
    return images


def made_by(part: Part) -> int:
    return part.log.read_text().count(" made in ")


def test_a_process_that_is_killed_amid_a_batch(system: Stack, node: Part) -> None:
    # Given a node amid a batch, with more in hand
    task_id = amid(system, 6)
    # When the process on its device dies, then its launcher starts another, which makes all
    (child,) = children_of(node.process.pid)
    os.kill(child, signal.SIGKILL)
    images = all_made_once(system, task_id, 6)
    assert node.process.poll() is None
    assert made_by(node) == 6 + 1
    assert {image["attempts"] for image in images} <= {1, 2}
    assert sum(image["attempts"] == 2 for image in images) >= 4  # those that were begun


def test_a_machine_that_dies_amid_a_batch(system: Stack, node: Part) -> None:
    # Given a node that stands still amid a batch, and another one
    task_id = amid(system, 6)
    machine = [*children_of(node.process.pid), node.process.pid]
    for process in machine:
        os.kill(process, signal.SIGSTOP)
    second = new_node(system)
    # When its machine dies
    for process in machine:
        os.kill(process, signal.SIGKILL)
    node.process.wait(60)
    # Then the other one makes what is missing
    all_made_once(system, task_id, 6)
    assert made_by(second) == 6


def test_a_node_that_is_told_to_go_amid_a_batch(system: Stack, node: Part) -> None:
    # Given a node amid its first batch, and one that waits for it to go
    task_id = amid(system, 12)
    before = made_by(node)
    # When it is told to go, then it finishes its batch and hands back the rest
    begun = time.monotonic()
    node.process.terminate()
    second = system.start("node")
    assert node.process.wait(90) == 0
    assert time.monotonic() - begun < 50  # it doesn't wait for all that it may
    finished = made_by(node) - before
    assert 1 <= finished <= 8  # it may have begun with the next batch
    # And another one makes them, each once and as its first attempt
    images = all_made_once(system, task_id, 12)
    assert finished + made_by(second) == 12
    assert {image["attempts"] for image in images} == {1}
    types = Counter(name for _, name in system.events(task_id))
    assert types["image.started"] == 12, types


def test_cancel_leaves_nothing_behind(system: Stack, node: Part, first: dict[str, Any]) -> None:
    # Given a node amid a batch, with more in hand
    task_id = amid(system, 8)
    before = made_by(node)
    # When that is canceled
    assert httpx.post(f"{system.url}/v1/jobs/{task_id}/cancel").json()["status"] == "canceled"
    begun = time.monotonic()
    image = one_image(system)
    # Then the next image comes at once, and has the bytes that another node gave it when it was fresh
    assert time.monotonic() - begun < 20
    assert image["sha256"] == first["sha256"]
    assert made_by(node) == before + 1

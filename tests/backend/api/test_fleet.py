"""/v1/models, /v1/workers, and why a job waits."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend.api import demand as demand_board
from backend.jobs import fairness, ids, store
from contract.messages import Device, ImageStarted, LoraCard, ModelCard, NodeAnnouncement
from tests.backend.api.conftest import Server
from tests.backend.api.test_jobs import make, plan, submit
from tests.backend.conftest import report

CARD = ModelCard(
    name="sketch", engine="diffusers", family="sdxl", revision="abc", license="Apache-2.0",
    tasks=("text-to-image", "inpainting"), max_pixels=1024 * 1024, schedulers=("euler",),
    default_scheduler="euler", loras=(LoraCard(name="ink", default_weight=0.7),), max_loras=1,
    can_preview=True, default_strength=0.6,
)  # fmt: skip


def say(server: Server, node: str = "n1", **values: Any) -> None:
    """A node says what it is at."""
    now = datetime.now(UTC)
    server.resources.signals.announce(
        NodeAnnouncement(
            node=node, version="0", device=Device(kind="cuda", name="H200", memory_bytes=150_000_000_000),
            models=(CARD,), started_at=now, seen_at=now, **values,
        )
    )  # fmt: skip
    server.resources.nodes._read_at = float("-inf")


def begin(server: Server, job_id: UUID, index: int) -> None:
    """A node has one of the job's images in hand."""
    now = datetime.now(UTC)
    started = ImageStarted(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, node="n1", attempts=1,
        started_at=now,
    )  # fmt: skip
    with server.resources.db.session_scope() as session:
        assert report(session, started, now)


def queue(server: Server, job_id: UUID) -> None:
    """The job's images wait for a node."""
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        fairness.assign_bands(session, job, job.images)
        store.sending(job.images, datetime.now(UTC))


def test_a_model_shows_all_of_its_card(api: httpx.Client, server: Server) -> None:
    say(server, loaded=("sketch",))
    say(server, "n2", loading=("sketch",))
    (model,) = api.get("/v1/models").json()["results"]
    assert {name: model[name] for name in CARD.model_dump()} == CARD.model_dump(mode="json")
    assert (model["workers"], model["loaded"], model["loading"]) == (2, 1, 1)


def test_a_model_that_nobody_has_described_is_listed_all_the_same(api: httpx.Client, server: Server) -> None:
    server.settings.models = ["later"]
    model = next(one for one in api.get("/v1/models").json()["results"] if one["name"] == "later")
    assert (model["engine"], model["loras"], model["workers"]) == (None, [], 0)


def test_a_worker_shows_what_it_is_at(api: httpx.Client, server: Server) -> None:
    say(server, loaded=("sketch",), loading=("sdxl",), doing="sketch: 4 images", memory_used_bytes=7)
    (worker,) = api.get("/v1/workers").json()["results"]
    assert worker["device"]["memory_bytes"] == 150_000_000_000
    assert worker["models"] == ["sketch"]
    assert (worker["loaded"], worker["loading"]) == (["sketch"], ["sdxl"])
    assert (worker["doing"], worker["memory_used_bytes"]) == ("sketch: 4 images", 7)


def demand(api: httpx.Client, server: Server, name: str = "sketch") -> tuple[int, int, float]:
    server.app.state.demand._read_at = float("-inf")
    models = api.get("/v1/models").json()["results"]
    return next((m["waiting"], m["running"], m["oldest_wait_s"]) for m in models if m["name"] == name)


def test_a_model_says_how_much_waits_for_it(api: httpx.Client, server: Server) -> None:
    # Given a model that nobody wants, then two jobs, of which one has no prompts yet
    assert demand(api, server) == (0, 0, 0)
    job_id, _ = submit(api, count=3), submit(api)
    plan(server, job_id)
    assert demand(api, server)[:2] == (3, 0)
    # When a node begins one, and another one is made
    begin(server, job_id, 0)
    make(server, job_id, 1)
    # Then one waits, one is in hand, and the oldest waits ever longer
    waiting, running, oldest_s = demand(api, server)
    assert (waiting, running) == (1, 1)
    time.sleep(0.15)
    assert oldest_s < demand(api, server)[2] < 60
    # And what is canceled waits no more
    api.post(f"/v1/jobs/{job_id}/cancel")
    assert demand(api, server) == (0, 0, 0)


def test_how_much_waits_is_asked_once_a_second(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a second that lasts as long as the test takes
    assert demand_board.CACHE_S == 1
    monkeypatch.setattr(demand_board, "CACHE_S", 600)
    assert demand(api, server)[0] == 0
    # When images wait, then that is not asked within it, and afterwards it is
    plan(server, submit(api, count=2))
    models = [api.get("/v1/models").json()["results"][0]["waiting"] for _ in range(3)]
    assert models == [0, 0, 0]
    monkeypatch.setattr(demand_board, "CACHE_S", 0)
    assert api.get("/v1/models").json()["results"][0]["waiting"] == 2


@pytest.mark.parametrize(
    ("nodes", "reason", "words"),
    [
        ([{"loaded": ("sketch",)}], None, ""),
        ([{"loading": ("sketch",)}], "cold_load", "is being loaded by n0."),
        ([{"loading": ("sketch",)}] * 2, "cold_load", "is being loaded by n0 and n1."),
        ([{"loaded": ("other",)}], "cold_load", "No live worker has the model sketch loaded"),
        ([{"loading": ("sketch",)}, {"loaded": ("sketch",)}], None, ""),
        ([{"loaded": ("sketch",), "state": "draining"}], "no_worker_for_model", "No live worker serves"),
    ],
)
def test_a_job_says_why_it_waits(
    api: httpx.Client, server: Server, nodes: list[dict[str, Any]], reason: str | None, words: str
) -> None:
    # Given a planned job, and nodes in various states
    server.resources.signals.leave("n1")
    for number, node in enumerate(nodes):
        say(server, f"n{number}", **node)
    job_id = submit(api)
    plan(server, job_id)
    # When its owner asks, then the reason is told
    waiting_for = api.get(f"/v1/jobs/{job_id}").json()["waiting_for"]
    assert (waiting_for and waiting_for["reason"]) == reason
    assert words in (waiting_for or {"message": ""})["message"]


def test_a_job_behind_others_says_its_place(api: httpx.Client, server: Server) -> None:
    first, second = submit(api, count=3), submit(api)
    for job_id in (first, second):
        plan(server, job_id)
        queue(server, job_id)
    waiting_for = api.get(f"/v1/jobs/{second}").json()["waiting_for"]
    assert (waiting_for["reason"], waiting_for["position"]) == ("ahead_of_you", 3)
    # And while the model is being loaded for all of them, it says that
    say(server, loading=("sketch",))
    waiting_for = api.get(f"/v1/jobs/{second}").json()["waiting_for"]
    assert (waiting_for["reason"], waiting_for["position"]) == ("cold_load", 3)

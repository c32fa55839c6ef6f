"""Jobs that stop when their prompts are written, until their client has read them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend import rescue, resources
from backend.jobs import deliveries, events, fairness, ids, queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status, WebhookDelivery
from backend.tasks.prompts import map_prompts
from contract.queues import MAP_PROMPTS
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.api.test_jobs import make, now, plan, save, submit


def held(api: httpx.Client, server: Server, **values: Any) -> UUID:
    """A job whose prompts are written, as `generate_prompts` leaves it."""
    job_id = submit(api, review=True, **values)
    plan(server, job_id)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.hold(session, job, now())
    return job_id


def row(server: Server, job_id: UUID) -> Job:
    with server.resources.db.read_scope() as session:
        job = queries.get(session, job_id)
    assert job is not None
    return job


def prompts(server: Server, job_id: UUID) -> list[str]:
    return [image.prompt for image in row(server, job_id).images]


def go_on(api: httpx.Client, job_id: UUID, **body: Any) -> httpx.Response:
    return api.post(f"/v1/jobs/{job_id}/continue", json=body)


def dispatched(server: Server) -> list[str]:
    """What lies in the queues of the jobs' steps: names of tasks."""
    found: list[str] = []
    with server.resources.celery.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for queue in ("default", "llm", "media"):
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                found.append(message.headers["task"])
    return found


def test_a_held_job_says_that_it_waits_for_its_client(api: httpx.Client, server: Server) -> None:
    job = api.get(f"/v1/jobs/{held(api, server, count=3)}").json()
    assert (job["status"], job["waiting_for"]["reason"]) == ("in_progress", "review")
    assert [image["status"] for image in job["images"]] == ["pending"] * 3
    assert job["input"]["review"] is True


def test_it_goes_on_with_its_prompts_as_they_are(api: httpx.Client, server: Server) -> None:
    job_id = held(api, server)
    dispatched(server)
    answer = go_on(api, job_id)
    assert (answer.status_code, answer.json()["waiting_for"]) == (202, None)
    assert dispatched(server) == [MAP_PROMPTS]
    assert prompts(server, job_id) == ["prompt 0", "prompt 1"]
    assert len(store.unsent(row(server, job_id))) == 2


@pytest.mark.parametrize("wanted", [["other 1"], ["prompt 1", "prompt 0"], ["a", "b", "c", "d", "e"]])
def test_it_goes_on_with_other_prompts(api: httpx.Client, server: Server, wanted: list[str]) -> None:
    job_id = held(api, server, seed=7)
    job = go_on(api, job_id, prompts=wanted).json()
    assert [image["prompt"] for image in job["images"]] == wanted
    assert [image["seed"] for image in job["images"]] == list(range(7, 7 + len(wanted)))
    assert [image["id"] for image in job["images"]] == [
        str(ids.image_id(job_id, index)) for index in range(len(wanted))
    ]
    assert job["progress"]["total"] == len(wanted)
    # And it ends as others do
    for index in range(len(wanted)):
        make(server, job_id, index)
    save(server, job_id, *range(len(wanted)))
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "completed"
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert [one.key for one in server.resources.storage.walk(f"jobs/{job_id}/")] == []


def test_only_once_and_only_when_it_waits(api: httpx.Client, server: Server) -> None:
    early = submit(api, review=True)
    job_id = held(api, server)
    assert go_on(api, job_id).status_code == 202
    for one in (early, job_id):
        again = go_on(api, one, prompts=["late"])
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert prompts(server, job_id) == ["prompt 0", "prompt 1"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompts": []},
        {"prompts": [" "]},
        {"prompts": ["x" * 2001]},
        {"prompts": ["x"] * 101},
        {"prompt": "x"},
    ],
)
def test_what_is_no_list_of_prompts_changes_nothing(
    api: httpx.Client, server: Server, body: dict[str, Any]
) -> None:
    job_id = held(api, server)
    assert go_on(api, job_id, **body).status_code == 422
    assert row(server, job_id).held_at is not None


def test_limits_hold_for_what_is_added(start_server: StartServer) -> None:
    server = start_server(max_open_images_per_owner=4, max_count=5)
    announce(server)
    with httpx.Client(base_url=server.url, timeout=20) as api:
        job_id = held(api, server)
        assert go_on(api, job_id, prompts=["x"] * 6).json()["errors"][0]["pointer"] == "#/prompts"
        assert go_on(api, job_id, prompts=["x"] * 5).status_code == 429
        assert row(server, job_id).held_at is not None
        assert go_on(api, job_id, prompts=["x"] * 4).status_code == 202


def test_nothing_else_lets_it_go_on(api: httpx.Client, server: Server) -> None:
    # Given a job that was held hours ago
    job_id = held(api, server)
    dispatched(server)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        job.updated_at = job.dispatched_at = now() - timedelta(hours=5)
    # Then no sweep sends it, and no node is asked for
    rescue.rescue(server.resources)
    assert dispatched(server) == []
    assert store.unsent(row(server, job_id)) == []
    with server.resources.db.read_scope() as session:
        assert queries.demand(session, ["sketch"]) == {}
        later = row(server, submit(api))
        assert fairness.band_of_job(session, later) == 0


def test_it_can_be_canceled_and_its_time_runs_out(api: httpx.Client, server: Server) -> None:
    canceled, late = held(api, server), held(api, server)
    assert api.post(f"/v1/jobs/{canceled}/cancel").json()["status"] == "canceled"
    assert go_on(api, canceled).status_code == 409
    with server.resources.db.session_scope() as session:
        assert queries.overdue(session, now() + timedelta(days=2)) == [late]
        assert store.fail(session, late, Fault("deadline_exceeded", "m", retryable=True), now())
    assert row(server, late).status is Status.FAILED
    assert row(server, late).held_at is None


def test_what_nobody_has_reviewed_in_time_is_still_to_be_reviewed_in_a_retry(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "current", lambda: server.resources)
    # Given a job that nobody let go on until its deadline
    job_id = held(api, server)
    fail(server, job_id)
    # When it is run again, then it makes no images, but waits anew
    job = api.post(f"/v1/jobs/{job_id}/retry").json()
    assert job["waiting_for"]["reason"] == "review"
    map_prompts(job_id=str(job_id), run=2)
    assert store.unsent(row(server, job_id)) == []
    assert row(server, job_id).status is Status.IN_PROGRESS
    assert go_on(api, job_id, prompts=["mine"]).status_code == 202
    assert len(store.unsent(row(server, job_id))) == 1
    # And once images were sent, a retry sends them again
    with server.resources.db.session_scope() as session:
        again = store.lock(session, job_id)
        assert again is not None
        store.sending(again.images, now())
    fail(server, job_id)
    assert (api.post(f"/v1/jobs/{job_id}/retry").json()["waiting_for"] or {}).get("reason") != "review"
    assert len(store.unsent(row(server, job_id))) == 1


def fail(server: Server, job_id: UUID) -> None:
    with server.resources.db.session_scope() as session:
        assert store.fail(session, job_id, Fault("deadline_exceeded", "late", retryable=True), now())


def test_it_has_all_its_time_after_the_review(api: httpx.Client, server: Server) -> None:
    job_id = held(api, server)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        job.deadline_at = now() + timedelta(minutes=1)
    go_on(api, job_id)
    assert row(server, job_id).deadline_at > now() + timedelta(hours=23)


def test_webhooks_may_tell_of_it(api: httpx.Client, server: Server) -> None:
    job_id = submit(api, review=True)
    plan(server, job_id)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        job.webhook = {"url": "https://example.com/hook", "events": ["job.awaiting_review"]}
        store.hold(session, job, now())
    with server.resources.db.session_scope() as session:
        (delivery_id,) = deliveries.take_due(session, now(), job_id)
        seq = session.get_one(WebhookDelivery, delivery_id).seq
        told = {event.seq: event.type for event in events.since(session, job_id, 0)}
    assert told[seq] == "job.awaiting_review"

"""/v1/jobs: get, wait, list, cancel, retry, delete."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend import sweep
from backend.jobs import ids, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job
from backend.jobs.store import Plan, SavedImage
from contract.messages import GeneratedImage, Timings
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.conftest import report


def now() -> datetime:
    return datetime.now(UTC)


def submit(api: httpx.Client, **values: Any) -> UUID:
    answer = api.post("/v1/thumbnails", json={"message": "a fox", "count": 2} | values)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["task_id"])


def plan(server: Server, job_id: UUID) -> None:
    with server.resources.db.session_scope() as session:
        job = store.begin(session, job_id, now())
        assert job is not None
        store.plan(session, job, [Plan(f"prompt {i}", "sketch", i) for i in range(job.total)], now())


def make(server: Server, job_id: UUID, index: int) -> None:
    key = ids.original_key(job_id, index, "webp")
    server.resources.storage.put(key, b"original", "image/webp")
    server.resources.storage.put(ids.thumbnail_key(job_id, index, 128, "webp"), b"small", "image/webp")
    with server.resources.db.session_scope() as session:
        report(
            session,
            GeneratedImage(
                job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, key=key,
                content_type="image/webp", bytes=8, sha256="0" * 64, width=64, height=64, seed=1,
                model="sketch", node="n1", attempts=1, timings=Timings(queued_ms=1, denoise_ms=7),
                made_with={"steps": 4},
            ),
            now(),
        )  # fmt: skip


def save(server: Server, job_id: UUID, *indexes: int) -> None:
    def one(index: int) -> SavedImage:
        thumbnail = {
            "key": ids.thumbnail_key(job_id, index, 128, "webp"), "width": 128, "height": 128,
            "content_type": "image/webp", "bytes": 5,
        }  # fmt: skip
        return SavedImage(index, 1, 8, "0" * 64, "image/webp", 64, 64, [thumbnail], "L00000fQfQfQ", "#112233")

    with server.resources.db.session_scope() as session:
        store.save(session, job_id, 1, [one(index) for index in indexes], {}, now())


def test_a_job_is_seen_growing(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    plan(server, job_id)
    make(server, job_id, 0)
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "in_progress"
    assert job["progress"]["completed"] == 1
    assert 0.4 < job["progress"]["fraction"] < 0.6
    assert api.get(job["images"][0]["url"]).content == b"original", "an original is there before the end"
    save(server, job_id, 0)
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "partially_completed"
    assert job["images"][0]["srcset"].endswith(" 128w")
    assert api.get(job["images"][0]["thumbnails"][0]["url"]).content == b"small"
    assert job["images"][0]["placeholder"] == {"blurhash": "L00000fQfQfQ", "color": "#112233"}
    assert job["images"][1]["error"]["code"] == "worker_lost"
    assert job["progress"] == {"completed": 1, "failed": 1, "total": 2, "fraction": 1.0}


def test_an_image_tells_how_it_was_made(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    plan(server, job_id)
    make(server, job_id, 0)
    made, other = api.get(f"/v1/jobs/{job_id}").json()["images"]
    assert (made["made_with"], made["sha256"]) == ({"steps": 4}, "0" * 64)
    assert {name: value for name, value in made["timings"].items() if value is not None} == {
        "queued_ms": 1, "denoise_ms": 7,
    }  # fmt: skip
    assert (other["made_with"], other["sha256"], set(other["timings"].values())) == ({}, None, {None})


def test_an_etag_saves_the_body(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    first = api.get(f"/v1/jobs/{job_id}")
    same = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    plan(server, job_id)
    changed = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


class TestWait:
    """Prefer: wait=N."""

    def test_it_answers_when_the_job_ends(self, api: httpx.Client, server: Server) -> None:
        job_id = submit(api)
        plan(server, job_id)

        def end() -> None:
            time.sleep(0.7)
            save(server, job_id)

        thread = threading.Thread(target=end)
        thread.start()
        answer = api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=15"})
        thread.join()
        assert answer.json()["status"] == "failed"
        assert answer.headers["preference-applied"] == "wait=15"
        assert 0.5 < answer.elapsed.total_seconds() < 5

    def test_it_answers_when_time_is_up(self, api: httpx.Client) -> None:
        job_id = submit(api)
        answer = api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "respond-async, wait=1"})
        assert answer.json()["status"] == "pending"
        assert 0.9 < answer.elapsed.total_seconds() < 4

    @pytest.mark.parametrize("prefer", ["wait=x", "wait=-5", "nonsense", "wait=0"])
    def test_what_is_no_wait_is_none(self, api: httpx.Client, prefer: str) -> None:
        job_id = submit(api)
        answer = api.get(f"/v1/jobs/{job_id}", headers={"Prefer": prefer})
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 2


def test_pages_go_forth_and_back(api: httpx.Client) -> None:
    job_ids = [str(submit(api)) for _ in range(5)][::-1]

    def ids_of(page: dict[str, Any]) -> list[str]:
        return [job["task_id"] for job in page["results"]]

    first = api.get("/v1/jobs", params={"limit": 2, "pipeline": "thumbnails"}).json()
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    assert ids_of(first) + ids_of(second) + ids_of(third) == job_ids
    assert (first["previous"], third["next"]) == (None, None)
    assert ids_of(api.get(third["previous"]).json()) == ids_of(second)
    back = api.get(second["previous"]).json()
    assert ids_of(back) == ids_of(first)
    assert back["previous"] is None


def test_lists_are_filtered(api: httpx.Client, server: Server) -> None:
    old, new = submit(api), submit(api)
    submit_time = api.get(f"/v1/jobs/{new}").json()["created_at"]
    with server.resources.db.session_scope() as session:
        store.fail(session, old, Fault("x", "y", retryable=True), now())

    def ids_of(**params: str) -> list[str]:
        return [job["task_id"] for job in api.get("/v1/jobs", params=params).json()["results"]]

    assert ids_of(status="failed") == [str(old)]
    assert ids_of(status="pending") == [str(new)]
    assert ids_of(created_before=submit_time) == [str(old)]
    assert ids_of(created_after=submit_time) == []


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "limit=0",
        "limit=101",
        "cursor=abc",
        "cursor=%00",
        "created_after=yesterday",
        "created_after=2026-01-01T00:00:00",
        "pipeline=x",
    ],
)
def test_bad_filters_are_explained(api: httpx.Client, query: str) -> None:
    answer = api.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == query.split("=")[0]


def test_cancel_is_idempotent(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    plan(server, job_id)
    for _ in range(2):
        answer = api.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert server.resources.signals.unwanted([job_id]) == {job_id: 1}
    state: str = server.resources.celery.AsyncResult(str(job_id)).state
    assert state == "REVOKED"


def test_retry_is_for_what_failed(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    answer = api.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    with server.resources.db.session_scope() as session:
        store.fail(session, job_id, Fault("llm_timeout", "Slow.", retryable=True), now())
    assert api.get(f"/v1/jobs/{job_id}").json()["error"]["code"] == "llm_timeout"
    answer = api.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (202, "pending", None)


def test_delete_deletes_the_objects_too(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    plan(server, job_id)
    make(server, job_id, 0)
    url = api.get(f"/v1/jobs/{job_id}").json()["images"][0]["url"]
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert api.get(url).status_code == 404
    everything = (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""), ("GET", "/events"))
    for method, path in everything:
        assert api.request(method, f"/v1/jobs/{job_id}{path}").status_code == 404


def test_unknown_ids_and_paths_are_problems(api: httpx.Client) -> None:
    for path, status in (
        (f"/v1/jobs/{UUID(int=1)}", 404), ("/v1/jobs/none", 422), ("/v1/nothing", 404), ("/v2", 404),
    ):  # fmt: skip
        answer = api.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert api.put("/v1/jobs").json()["code"] == "method_not_allowed"


def test_a_job_says_when_it_goes_and_then_is_gone(start_server: StartServer) -> None:
    server = start_server(job_ttl_s=3600)
    announce(server)
    with httpx.Client(base_url=server.url, timeout=20) as api:
        # Given a job that ends
        accepted = api.post("/v1/thumbnails", json={"message": "m"}).json()
        assert accepted["expires_at"] is None
        ended = api.post(f"/v1/jobs/{accepted['task_id']}/cancel").json()
        left = datetime.fromisoformat(ended["expires_at"]) - datetime.fromisoformat(ended["completed_at"])
        assert left == timedelta(hours=1)
        # When its time has come
        with server.resources.db.session_scope() as session:
            session.get_one(Job, UUID(accepted["task_id"])).expires_at = datetime.now(UTC)
        sweep._expire(server.resources)
        # Then nobody finds it
        assert api.get(f"/v1/jobs/{accepted['task_id']}").status_code == 404
        assert api.get("/v1/jobs").json()["results"] == []

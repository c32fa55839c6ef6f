"""GET /status/{task_id}: each state of a job in Celery's words."""

from uuid import UUID, uuid4

import httpx
import pytest

from backend.jobs import store
from backend.jobs.faults import Fault
from backend.jobs.models import Status
from tests.backend.api.conftest import Server
from tests.backend.api.test_jobs import now, plan, submit
from tests.backend.conftest import report
from tests.backend.jobs.test_store import failure, generated, saved


def status_of(api: httpx.Client, job_id: UUID) -> tuple[str, object]:
    answer = api.get(f"/status/{job_id}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["task_id"] == str(job_id)
    return answer.json()["status"], answer.json()["result"]


def make(server: Server, job_id: UUID, index: int) -> None:
    with server.resources.db.session_scope() as session:
        assert report(session, generated(job_id, index), now())


def test_pending_then_progress_then_success(api: httpx.Client, server: Server) -> None:
    # Given a job of two images
    job_id = submit(api, count=2)
    assert status_of(api, job_id) == ("PENDING", None)
    plan(server, job_id)
    make(server, job_id, 0)
    assert status_of(api, job_id) == (
        "PROGRESS", {"completed": 1, "failed": 0, "total": 2, "fraction": 0.475},
    )  # fmt: skip
    # When one of them fails and the other is saved
    with server.resources.db.session_scope() as session:
        assert report(session, failure(job_id, 1), now())
        job = store.save(session, job_id, 1, [saved(0)], {}, now())
        assert job is not None
        assert job.status is Status.PARTIALLY_COMPLETED
    # Then that is a success, which says what failed
    status, result = status_of(api, job_id)
    assert status == "SUCCESS"
    assert isinstance(result, dict)
    (image,) = result["images"]
    assert image["url"].startswith(server.url)
    assert result["failed"] == [{"index": 1, "code": "out_of_memory", "message": "Too big."}]
    assert result["output"] is None
    # And it is the same as the job says
    assert image["id"] == api.get(f"/v1/jobs/{job_id}").json()["images"][0]["id"]


def test_failure(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    with server.resources.db.session_scope() as session:
        store.fail(session, job_id, Fault("llm_refused", "No.", retryable=False), now())
    assert status_of(api, job_id) == (
        "FAILURE", {"code": "llm_refused", "message": "No.", "retryable": False},
    )  # fmt: skip


def test_revoked(api: httpx.Client) -> None:
    job_id = submit(api)
    api.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    assert status_of(api, job_id) == ("REVOKED", None)


def test_the_output_of_a_job_without_images(api: httpx.Client, server: Server) -> None:
    job_id = UUID(api.post("/v1/prompts", json={"message": "a"}).json()["task_id"])
    with server.resources.db.session_scope() as session:
        job = store.begin(session, job_id, now())
        assert job is not None
        store.complete(session, job, {"prompts": ["p"]}, now())
    result = {"images": [], "items": [], "failed": [], "output": {"prompts": ["p"]}}
    assert status_of(api, job_id) == ("SUCCESS", result)


@pytest.mark.parametrize("path", [f"/status/{uuid4()}", "/status/x"])
def test_what_is_no_job_of_ones_own(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == (422 if path.endswith("/x") else 404)
    assert answer.headers["content-type"] == "application/problem+json"

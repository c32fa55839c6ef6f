"""POST /v1/prompts: prompts, and no images."""

from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from backend import rescue
from backend.jobs import store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status
from contract.queues import WRITE_PROMPTS
from tests.backend.api.conftest import Server
from tests.backend.api.test_jobs import now
from tests.backend.api.test_review import dispatched, row

PROMPTS = ["A bookshop window at dusk", "A stack of old books"]


def submit(api: httpx.Client, **values: object) -> UUID:
    answer = api.post("/v1/prompts", json={"message": "a bookshop", "count": 2} | values)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["task_id"])


def begin(server: Server, job_id: UUID, *, complete: bool = False, fail: bool = False) -> None:
    with server.resources.db.session_scope() as session:
        job = store.begin(session, job_id, now())
        assert isinstance(job, Job)
        if complete:
            store.complete(session, job, {"prompts": PROMPTS}, now(), timedelta(days=1))
        elif fail:
            store.fail(session, job_id, Fault("llm_failed", "m", retryable=True), now())


def test_its_output_is_the_prompts(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    assert dispatched(server) == [WRITE_PROMPTS]
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["output"], job["images"]) == ("pending", None, [])
    assert job["progress"] == {"completed": 0, "failed": 0, "total": 0, "fraction": 0}
    begin(server, job_id, complete=True)
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["output"], job["images"]) == ("completed", {"prompts": PROMPTS}, [])
    assert job["progress"]["fraction"] == 1
    assert job["expires_at"] is not None
    listed = api.get("/v1/jobs", params={"pipeline": "prompts"}).json()["results"]
    assert [one["task_id"] for one in listed] == [str(job_id)]
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_what_was_lost_is_sent_again(api: httpx.Client, server: Server) -> None:
    # Given a job whose worker died over it, and whose message is gone
    job_id = submit(api)
    begin(server, job_id)
    dispatched(server)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        job.updated_at = job.dispatched_at = now() - timedelta(hours=1)
    rescue.rescue(server.resources)
    assert dispatched(server) == [WRITE_PROMPTS]


def test_what_failed_is_run_again(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    begin(server, job_id, fail=True)
    assert row(server, job_id).status is Status.FAILED
    dispatched(server)
    assert api.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    assert dispatched(server) == [WRITE_PROMPTS]


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 101}, {"message": " "}, {"model": "sketch"}])
def test_what_is_no_such_request(api: httpx.Client, bad: dict[str, object]) -> None:
    answer = api.post("/v1/prompts", json={"message": "a bookshop"} | bad)
    assert answer.status_code == 422
    assert answer.json()["errors"]

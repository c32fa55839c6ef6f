"""What is remembered of finished jobs is never told for longer than it is true, whoever changes the job."""

from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from backend import views
from backend.api import answers
from backend.errors import NotFound
from backend.jobs import queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Status
from tests.backend.api.conftest import Server


@pytest.fixture
def finished(api: httpx.Client, server: Server) -> UUID:
    """A failed job, which was polled."""
    job_id = UUID(api.post("/v1/thumbnails", json={"message": "a lighthouse", "count": 1}).json()["task_id"])
    with server.resources.db.session_scope() as session:
        assert store.fail(session, job_id, Fault("internal", "broken", retryable=True), views.now())
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "failed"
    return job_id


def test_the_same_answer_again(api: httpx.Client, finished: UUID) -> None:
    first, second = api.get(f"/v1/jobs/{finished}"), api.get(f"/v1/jobs/{finished}")

    assert second.content == first.content
    assert second.headers["ETag"] == first.headers["ETag"]


def test_a_retry_elsewhere_is_seen_at_once(api: httpx.Client, server: Server, finished: UUID) -> None:
    with server.resources.db.session_scope() as session:
        job = store.lock(session, finished)
        assert job
        store.retry(session, job, views.now(), timedelta(hours=1))

    assert api.get(f"/v1/jobs/{finished}").json()["status"] == Status.PENDING


def test_a_date_given_elsewhere_is_seen_at_once(api: httpx.Client, server: Server, finished: UUID) -> None:
    with server.resources.db.session_scope() as session:
        store.set_expiry(session, finished, timedelta(days=3), timedelta(days=1), views.now())

    assert api.get(f"/v1/jobs/{finished}").json()["expires_at"]


def test_a_job_deleted_elsewhere_is_gone_at_once(api: httpx.Client, server: Server, finished: UUID) -> None:
    with server.resources.db.session_scope() as session:
        job = queries.get(session, finished)
        assert job
        job.deleted_at = views.now()

    assert api.get(f"/v1/jobs/{finished}").status_code == 404


def test_it_is_for_its_owner_alone(server: Server, finished: UUID) -> None:
    remembered = server.app.state.answers

    assert remembered.read(finished, "local").ended
    with pytest.raises(NotFound):
        remembered.read(finished, "somebody else")


def test_memory_is_bounded(server: Server, finished: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT_BYTES", 10)
    remembered = answers.Answers(server.resources)

    assert remembered.read(finished, "local").ended
    assert remembered._bytes == 0

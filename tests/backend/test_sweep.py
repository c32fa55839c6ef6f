"""One round of the sweep: what goes wrong in a part of it keeps nothing else from being done."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from backend import rescue, submit
from backend.jobs.models import Job, Status
from backend.pipelines import PIPELINES
from backend.pipelines.prompts import PromptsRequest
from backend.sweep import sweep
from backend.views import now
from contract.queues import LLM_QUEUE
from tests.backend.workplace import Workplace, working


@pytest.fixture
def place(
    database: object, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    yield from working(Workplace(database_url, redis_url, tmp_path), monkeypatch)


def accept(place: Workplace) -> UUID:
    """A job that the broker has lost."""
    done = submit.submit(
        place.parts, PIPELINES["prompts"], PromptsRequest(message="a fox"), owner="local",
        idempotency_key=None, answer=lambda job: {},
    )  # fmt: skip
    place.waiting(LLM_QUEUE)
    return done.job_id


def change(place: Workplace, job_id: UUID, **values: object) -> None:
    with place.parts.db.session_scope() as session:
        job = session.get_one(Job, job_id)
        for name, value in values.items():
            setattr(job, name, value)


def test_a_job_of_a_pipeline_that_is_not_here_holds_up_no_other(place: Workplace) -> None:
    # Given jobs that were never dispatched, the first of a pipeline that was taken out since
    gone, other, late = accept(place), accept(place), accept(place)
    long_ago = now() - timedelta(minutes=1)
    change(place, gone, pipeline="taken_out", dispatched_at=None, created_at=long_ago, updated_at=long_ago)
    change(place, other, dispatched_at=None, created_at=long_ago, updated_at=long_ago)
    change(place, late, deadline_at=long_ago)
    # When the sweep comes, and once more after a while
    sweep()
    assert [message["job_id"] for message in place.waiting(LLM_QUEUE)] == [str(other)]
    place.age(gone, 3600)
    sweep()
    # Then the others are dispatched and ended; it is left until its time is over, also if it is run again
    assert place.job(late).status is Status.FAILED
    assert place.job(gone).status is Status.PENDING
    change(place, gone, deadline_at=long_ago)
    sweep()
    assert (place.job(gone).status, place.job(gone).error_code) == (Status.FAILED, "deadline_exceeded")
    submit.retry(place.parts, gone, "local")
    assert place.job(gone).status is Status.PENDING


def test_a_part_that_breaks_keeps_nothing_else_from_being_done(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    late = accept(place)
    change(place, late, deadline_at=now() - timedelta(minutes=1))

    def breaks(parts: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rescue, "rescue", breaks)
    sweep()
    assert place.job(late).status is Status.FAILED
    assert "breaks broke off" in caplog.text
    assert "ZeroDivisionError" in caplog.text

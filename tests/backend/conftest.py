"""Both databases, migrated, and jobs to put into them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from backend import db
from backend.db import Database
from backend.jobs import ids, store
from backend.jobs.models import Job, Status
from backend.jobs.store import Plan, Report


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    db.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.close()


def report(session: Session, message: Report, at: datetime) -> bool:
    """Takes one report of a node; whether it was news."""
    job = store.lock(session, message.job_id)
    return job is not None and bool(store.take(session, job, [message], at))


class MakeJob(Protocol):
    """Accepts a job, with `planned` rows where asked."""

    def __call__(self, *, planned: int = 0, **values: Any) -> UUID: ...


@pytest.fixture
def make_job(database: Database) -> MakeJob:
    """Accepts a job."""

    def make(*, planned: int = 0, **values: Any) -> UUID:
        now = datetime.now(UTC)
        job_id = ids.new_job_id()
        given: dict[str, Any] = {
            "owner": "local", "pipeline": "thumbnails", "total": planned or 4, "client_metadata": {},
            "input": {"message": "a lighthouse", "model": "sketch", "seed": 7, "width": 64, "height": 64,
                      "output_format": "webp", "thumbnail_sizes": [32], "negative_prompt": None,
                      "title": None, "steps": None, "guidance": None},
        } | values  # fmt: skip
        with database.session_scope() as session:
            job = Job(
                id=job_id, status=Status.PENDING, run=1, last_event=0, created_at=now, updated_at=now,
                deadline_at=now + timedelta(hours=1), **given,
            )  # fmt: skip
            store.accept(session, job, now)
            if planned:
                begun = store.begin(session, job_id, now)
                assert begun is not None
                store.plan(session, begun, [Plan(f"prompt {i}", "sketch", i) for i in range(planned)], now)
        return job_id

    return make

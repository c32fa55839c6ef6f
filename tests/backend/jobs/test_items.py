"""Files of jobs, as lists of jobs show them; on both databases."""

from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa

from backend.db import Database
from backend.jobs import items, queries, store
from backend.jobs.items import SHOWN, Source
from backend.jobs.models import Job, Status
from backend.jobs.queries import JobFilter
from tests.backend.conftest import MakeJob


def files_of(database: Database, make_job: MakeJob, count: int) -> UUID:
    job_id = make_job(pipeline="uploads", total=count, takes_files=True)
    with database.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        items.plan(session, job, [Source(filename=f"{n}.png") for n in range(count)], datetime.now(UTC))
    return job_id


def page(database: Database) -> list[Job]:
    with database.read_scope() as session:
        return queries.page(session, "local", JobFilter(), 100, before=None, after=None)


def test_a_page_of_jobs_asks_as_little_for_many_as_for_one(database: Database, make_job: MakeJob) -> None:
    asked: list[object] = []
    first = files_of(database, make_job, 3)
    sa.event.listen(database.engine, "before_cursor_execute", lambda *it: asked.append(it[2]))
    assert [job.id for job in page(database)] == [first]
    for_one = len(asked)
    # When there are more of them, and one without files
    without = make_job()
    counts = {without: 0, first: 3} | {files_of(database, make_job, n): n for n in (1, SHOWN + 5, 2)}
    seen = len(asked)
    jobs = page(database)
    # Then each has its own, at most so many of them, and the count of all
    assert len(asked) - seen == for_one
    assert {job.id: sum(job.item_counts.values()) for job in jobs} == counts
    for job in jobs:
        names = [item.filename for item in job.first_items]
        assert names == [f"{n}.png" for n in range(min(counts[job.id], SHOWN))]
        assert set(job.item_counts) <= {Status.PENDING}

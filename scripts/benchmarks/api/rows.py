"""Jobs as the database holds them once they are made, or while they are."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import uuid_utils.compat

from backend.api.dependencies import ANONYMOUS
from backend.db import Database
from backend.jobs import events
from backend.jobs.models import ImageGeneration, Job, JobEvent, Status
from scripts.benchmarks.api.bare import DOCUMENTS

IMAGES = 4
THUMBNAILS = (512, 256, 128)


def add_finished(database: Database) -> UUID:
    """A completed job of four images, each with three thumbnails."""
    return _add(database, 1, Status.COMPLETED)[0]


def add_running(database: Database, count: int) -> list[UUID]:
    """Jobs that have begun and don't end, with four images in hand each."""
    return _add(database, count, Status.IN_PROGRESS)


def add_document(database: Database, body: str) -> UUID:
    """What the bare endpoint answers."""
    document = uuid_utils.compat.uuid7()
    with database.engine.begin() as connection:
        connection.execute(DOCUMENTS.insert().values(id=document, body=body))
    return document


def add_event(database: Database, job_ids: list[UUID]) -> None:
    """One thing more happens to each of these jobs, in one transaction."""
    with database.session_scope() as session:
        for job_id in job_ids:
            job = session.get_one(Job, job_id)
            events.record(session, job, "image.started", {"index": 0, "status": "in_progress"}, _now())


def remove_pending(database: Database) -> None:
    """Jobs that nobody has begun."""
    with database.session_scope() as session:
        session.execute(sa.delete(Job).where(Job.status == Status.PENDING))


def _add(database: Database, count: int, status: Status) -> list[UUID]:
    jobs = [_job(status) for _ in range(count)]
    with database.session_scope() as session:
        session.add_all(jobs)
        session.flush()
        session.add_all(
            JobEvent(job_id=job.id, seq=1, type="job.started", data={}, created_at=job.created_at)
            for job in jobs
        )
        return [job.id for job in jobs]


def _job(status: Status) -> Job:
    job_id, now = uuid_utils.compat.uuid7(), _now()
    ended = status is Status.COMPLETED
    return Job(
        id=job_id, owner=ANONYMOUS, pipeline="thumbnails", status=status,
        input={"message": "a lighthouse at night", "count": IMAGES, "model": "sketch", "width": 1024,
               "height": 1024, "sizes": list(THUMBNAILS), "priority": 5},
        client_metadata={"order": "17"}, total=IMAGES, run=1, last_event=1, created_at=now, updated_at=now,
        dispatched_at=now, started_at=now, completed_at=now if ended else None,
        deadline_at=now + timedelta(days=1),
        images=[_image(job_id, index, status, now) for index in range(IMAGES)],
    )  # fmt: skip


def _image(job_id: UUID, index: int, status: Status, now: datetime) -> ImageGeneration:
    return ImageGeneration(
        id=uuid_utils.compat.uuid7(), job_id=job_id, index=index, status=status, run=1,
        prompt=f"A lighthouse at night, picture {index}, long exposure, calm sea, wide angle, film grain",
        model="sketch", seed=1_000_003 * (index + 1), attempts=1, created_at=now, queued_at=now,
        started_at=now, **(_made(job_id, index, now) if status is Status.COMPLETED else {}),
    )  # fmt: skip


def _made(job_id: UUID, index: int, now: datetime) -> dict[str, Any]:
    folder = f"jobs/{job_id}/{index:03}"
    return {
        "key": f"{folder}/original.webp", "content_type": "image/webp", "bytes": 123_456, "sha256": "5" * 64,
        "width": 1024, "height": 1024, "blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "color": "#b5651d",
        "generated_at": now, "completed_at": now,
        "made_with": {"engine": "sketch", "version": "0.1.0", "steps": 20, "device": "cpu"},
        "timings": {"queued_ms": 12, "generate_ms": 480, "denoise_ms": 400, "decode_ms": 60, "store_ms": 30},
        "thumbnails": [
            {"key": f"{folder}/{size}.webp", "width": size, "height": size, "content_type": "image/webp",
             "bytes": size * 60}
            for size in THUMBNAILS
        ],
    }  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC)

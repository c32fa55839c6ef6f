"""The rows and files of a job, and nothing else: what the same code does without a queue, in one process.

Originals are brought to the API, as nodes bring them.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from backend import db
from backend.db import Database
from backend.jobs import ids, queries, store
from backend.jobs.models import Job, Status
from backend.jobs.store import Plan, Report, SavedImage
from backend.storage.base import Storage
from contract.messages import GeneratedImage, ImageStarted, Timings
from gpu_worker.upload import Uploader
from scripts.benchmarks.queue.fixed import IMAGES, ORIGINAL, THUMBNAIL, THUMBNAIL_SIZES

SHA256 = "0" * 64


@contextlib.contextmanager
def open_work(database_url: str, storage: Storage) -> Iterator[Callable[[], None]]:
    """What does one job's work. The storage's API must be there."""
    db.upgrade(database_url)
    with contextlib.closing(Database(database_url)) as database, contextlib.closing(Uploader(60)) as uploader:
        yield lambda: _work(database, storage, uploader)


def _work(database: Database, storage: Storage, uploader: Uploader) -> None:
    """The transactions of a job, as its tasks make them, and its files."""
    job = _new_job()
    with database.session_scope() as session:
        store.accept(session, job, _now())
        store.dispatching(job, _now())
    with database.session_scope() as session:
        begun = store.begin(session, job.id, _now(), 1)
        assert begun is not None
        store.claim(begun, "one", _now(), _now())
    with database.session_scope() as session:
        begun = store.begin(session, job.id, _now(), 1)
        assert begun is not None
        store.plan(session, begun, [Plan("a prompt", "nothing", seed) for seed in range(IMAGES)], _now())
        store.sending(begun.images, _now())
    for index in range(IMAGES):
        _bring(storage, uploader, ids.original_key(job.id, index, "webp"))
    with database.session_scope() as session:
        for locked in store.lock_all(session, [job.id]):
            store.take(session, locked, _reports(job), _now())
    with database.read_scope() as session:
        queries.get(session, job.id)
    saved = [_save(storage, job, index) for index in range(IMAGES)]
    with database.session_scope() as session:
        store.save(session, job.id, 1, saved, {}, _now())


def _bring(storage: Storage, uploader: Uploader, key: str) -> None:
    upload = storage.upload_url(key, content_type="image/webp", max_bytes=2 * len(ORIGINAL), expires_in=600)
    uploader.put(upload, ORIGINAL, seconds_left=60)


def _now() -> datetime:
    return datetime.now(UTC)


def _new_job() -> Job:
    now = _now()
    asked: dict[str, Any] = {
        "message": "a lighthouse",
        "model": "nothing",
        "thumbnail_sizes": THUMBNAIL_SIZES,
    }
    return Job(
        id=ids.new_job_id(), owner="bench", pipeline="thumbnails", status=Status.PENDING, input=asked,
        client_metadata={}, total=IMAGES, run=1, sends=0, last_event=0, created_at=now, updated_at=now,
        deadline_at=now + timedelta(hours=1), images=[],
    )  # fmt: skip


def _reports(job: Job) -> list[Report]:
    found: list[Report] = []
    for index in range(IMAGES):
        which: dict[str, Any] = {
            "job_id": job.id, "image_id": ids.image_id(job.id, index), "index": index, "run": 1, "node": "n",
            "attempts": 1,
        }  # fmt: skip
        found.append(ImageStarted(**which, started_at=_now()))
        found.append(
            GeneratedImage(
                **which, key=ids.original_key(job.id, index, "webp"), content_type="image/webp",
                bytes=len(ORIGINAL), sha256=SHA256, width=64, height=64, seed=index, model="nothing",
                timings=Timings(),
            )
        )  # fmt: skip
    return found


def _save(storage: Storage, job: Job, index: int) -> SavedImage:
    storage.get(ids.original_key(job.id, index, "webp"), max_bytes=2 * len(ORIGINAL))
    thumbnails = []
    for size in THUMBNAIL_SIZES:
        key = ids.thumbnail_key(job.id, index, size, "webp")
        storage.put(key, THUMBNAIL, "image/webp")
        thumbnails.append(
            {"key": key, "width": size, "height": size, "content_type": "image/webp", "bytes": len(THUMBNAIL)}
        )
    return SavedImage(index, 1, len(ORIGINAL), SHA256, "image/webp", 64, 64, thumbnails, "L00", "#808080")

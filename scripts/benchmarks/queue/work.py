"""The rows and files of a job, and nothing else: what the same code does without a queue, in one process."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend import db
from backend.db import Database
from backend.jobs import ids, queries, store
from backend.jobs.models import Job, Status
from backend.jobs.store import Plan, Report, SavedImage
from backend.storage.local import LocalStorage
from backend.storage.signing import Signer
from contract.messages import GeneratedImage, ImageStarted, Timings
from scripts.benchmarks.queue.fixed import IMAGES, ORIGINAL, THUMBNAIL, THUMBNAIL_SIZES

SHA256 = "0" * 64


def open_work(database_url: str, folder: Path) -> Callable[[], None]:
    """What does one job's work."""
    db.upgrade(database_url)
    database = Database(database_url)
    storage = LocalStorage(folder, public_url="http://x", node_url="http://x", signer=Signer(b"0" * 32))
    return lambda: _work(database, storage)


def _work(database: Database, storage: LocalStorage) -> None:
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
        storage.put(ids.original_key(job.id, index, "webp"), ORIGINAL, "image/webp")
    with database.session_scope() as session:
        for locked in store.lock_all(session, [job.id]):
            store.take(session, locked, _reports(job), _now())
    with database.read_scope() as session:
        queries.get(session, job.id)
    saved = [_save(storage, job, index) for index in range(IMAGES)]
    with database.session_scope() as session:
        store.save(session, job.id, 1, saved, {}, _now())


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
        client_metadata={}, total=IMAGES, run=1, last_event=0, created_at=now, updated_at=now,
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


def _save(storage: LocalStorage, job: Job, index: int) -> SavedImage:
    storage.get(ids.original_key(job.id, index, "webp"), max_bytes=2 * len(ORIGINAL))
    thumbnails = []
    for size in THUMBNAIL_SIZES:
        key = ids.thumbnail_key(job.id, index, size, "webp")
        storage.put(key, THUMBNAIL, "image/webp")
        thumbnails.append(
            {"key": key, "width": size, "height": size, "content_type": "image/webp", "bytes": len(THUMBNAIL)}
        )
    return SavedImage(index, 1, len(ORIGINAL), SHA256, "image/webp", 64, 64, thumbnails, "L00", "#808080")

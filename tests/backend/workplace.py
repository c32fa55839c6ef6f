"""What a worker has around it, for tests that do its work themselves: a real database, broker and storage."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from backend import resources
from backend.jobs import queries, store
from backend.jobs.models import ImageGeneration, Job
from backend.nodes import NodeDirectory
from backend.resources import Resources
from backend.settings import Settings
from contract.messages import Device, ModelCard, NodeAnnouncement
from tests.backend.api.conftest import use_broker

NODE = "n1/cpu/1"


class Workplace:
    """The worker's parts, and the verbs of a test."""

    def __init__(self, database_url: str, redis_url: str, folder: Path, **values: Any) -> None:
        use_broker(redis_url)
        given: dict[str, Any] = {
            "home": folder, "database_url": database_url, "broker_url": redis_url, "result_url": redis_url,
            "storage_url": (folder / "files").as_uri(), "llm": "template",
        } | values  # fmt: skip
        self.parts = Resources.open(Settings(_env_file=None, **given))

    def job(self, job_id: UUID) -> Job:
        with self.parts.db.read_scope() as session:
            job = queries.get(session, job_id)
        assert job is not None
        return job

    def waiting(self, queue: str) -> list[dict[str, Any]]:
        """Takes all messages out of a queue: what each is about."""
        with self.parts.celery.connection_for_read() as connection:
            channel: Any = connection.default_channel
            taken = []
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                arguments, words, _ = message.decode()
                taken.append(words or (arguments[0] if arguments else {}))
        return taken

    def fill(self, queue: str) -> None:
        """Something else waits there."""
        self.parts.celery.send_task("test.nothing", queue=queue)

    def announce(self, in_hand: Iterable[UUID] = (), node: str = NODE) -> None:
        """A node says that it is there, and with which images."""
        now = datetime.now(UTC)
        self.parts.signals.announce(
            NodeAnnouncement(
                node=node, version="1", device=Device(kind="cpu", name="cpu"), in_hand=tuple(in_hand),
                models=(ModelCard(name="sketch", engine="sketch"),), started_at=now, seen_at=now,
            )
        )  # fmt: skip
        self.look_again()

    def look_again(self) -> None:
        """What was announced is asked anew, not remembered for a second."""
        self.parts.nodes = NodeDirectory(self.parts.signals)

    def age(self, job_id: UUID, seconds: float) -> None:
        """Lets so much time pass for the job and its images."""
        by = timedelta(seconds=seconds)
        with self.parts.db.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            _shift(job, ("updated_at", "dispatched_at", "claimed_until"), by)
            for image in job.images:
                _shift(image, ("queued_at", "started_at", "leased_until", "generated_at"), by)

    def close(self) -> None:
        self.parts.close()


def _shift(row: Job | ImageGeneration, names: Iterable[str], by: timedelta) -> None:
    for name in names:
        if (at := getattr(row, name)) is not None:
            setattr(row, name, at - by)
    sa.orm.attributes.flag_modified(row, "status")


def working(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """A place for tests that run tasks in their own process."""
    monkeypatch.setattr(resources, "current", lambda: place.parts)
    yield place
    place.close()

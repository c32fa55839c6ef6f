"""One owner's hundreds of images don't hold up another owner's four; and nobody waits for ever."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa

from backend import keys
from backend.db import Database
from backend.jobs.models import ImageGeneration
from tests.acceptance.brokers import BROKERS, shared_broker
from tests.acceptance.stack import Stack, stack

SMALL: dict[str, Any] = {"message": "a lighthouse", "width": 64, "height": 64, "thumbnail_sizes": [16]}


@dataclass
class Owner:
    """Somebody with a key."""

    system: Stack
    key: str

    def submit(self, count: int, *, cancel_after: str = "1h") -> UUID:
        headers = {"Cancel-After": cancel_after}
        answer = self.ask("POST", "/v1/thumbnails", json=SMALL | {"count": count}, headers=headers)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["task_id"])

    def job(self, job_id: UUID, wait: int = 0) -> dict[str, Any]:
        answer = self.ask("GET", f"/v1/jobs/{job_id}", headers={"Prefer": f"wait={wait}"} if wait else {})
        job: dict[str, Any] = answer.raise_for_status().json()
        return job

    def cancel(self, job_id: UUID) -> None:
        self.ask("POST", f"/v1/jobs/{job_id}/cancel").raise_for_status()

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} | given.pop("headers", {})
        return httpx.request(method, self.system.url + path, headers=headers, timeout=90, **given)


def new_owner(system: Stack, name: str) -> Owner:
    with opened(system) as database, database.session_scope() as session:
        return Owner(system, keys.create(session, name)[1])


@contextmanager
def opened(system: Stack) -> Iterator[Database]:
    database = Database(f"sqlite:///{system.folder / 'home' / 'fanfare.db'}")
    yield database
    database.close()


@pytest.fixture(scope="module", params=BROKERS)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A node that makes four images a second, one at a time."""
    folder: Path = tmp_path_factory.mktemp("fairness")
    with stack(
        folder,
        **shared_broker(request.param, request),
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_MOVE_FORWARD_AFTER_S="12",  # longer than it takes to make six images on a busy machine
        FANFARE_SKETCH_DELAY_S="0.25",
        FANFARE_NODE_CONCURRENCY="1",
    ) as made:
        made.start_all()
        yield made


def rows(system: Stack, job_ids: list[UUID]) -> list[ImageGeneration]:
    with opened(system) as database, database.read_scope() as session:
        return list(session.scalars(sa.select(ImageGeneration).where(ImageGeneration.job_id.in_(job_ids))))


def made(images: list[ImageGeneration]) -> list[datetime]:
    return sorted(image.generated_at for image in images if image.generated_at)


def test_four_images_are_done_before_the_next_twenty_of_a_large_owner(system: Stack) -> None:
    # Given an owner with 1,000 images, of which some are made
    large, small = new_owner(system, "large"), new_owner(system, "small")
    theirs = [large.submit(100) for _ in range(10)]
    system.until(lambda: len(made(rows(system, theirs))) >= 6 and len(rows(system, theirs)) == 1000)

    # Then that owner's second job says how many are ahead of it, and how long they will take
    before = len(made(rows(system, theirs)))
    waiting = large.job(theirs[1])["waiting_for"]
    after = len(made(rows(system, theirs)))
    assert waiting["reason"] == "ahead_of_you"
    assert 90 - after <= waiting["position"] <= 100 - before
    assert waiting["estimate_s"] >= waiting["position"] / 4

    # When another owner wants four
    mine = small.submit(4)
    accepted = mine.int >> 80  # milliseconds since 1970: a UUIDv7
    job = small.job(mine, wait=60)

    # Then they are made before the next twenty of the first
    assert job["status"] == "completed", system.logs()
    last = made(rows(system, [mine]))[-1]
    between = [at for at in made(rows(system, theirs)) if at.timestamp() * 1000 >= accepted and at < last]
    assert len(between) < 20, system.logs()
    for job_id in theirs:
        large.cancel(job_id)


def test_a_stream_of_small_jobs_does_not_pass_a_large_one_for_ever(system: Stack) -> None:
    # Given owners who together ask for all that the node can make, four by four, for as long as it takes
    owners = itertools.cycle([new_owner(system, f"small-{number}") for number in range(8)])
    over = threading.Event()
    sent: list[tuple[Owner, UUID]] = []

    def stream() -> None:
        while not over.wait(0.8):
            owner = next(owners)
            sent.append((owner, owner.submit(4)))

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        # When somebody wants more than the few that go first
        large = new_owner(system, "one of many")
        job = large.submit(8)
        # Then all of it is made nevertheless
        system.until(lambda: large.job(job, wait=30)["completed_at"] is not None)
        assert large.job(job, wait=60)["status"] == "completed", system.logs()
        assert len(sent) > 3
    finally:
        over.set()
        thread.join()
        for owner, job_id in sent:
            owner.cancel(job_id)
    assert any("was passed over for long" in part.log.read_text() for part in system.parts)


def test_a_job_that_takes_longer_than_its_client_waits_is_canceled(system: Stack) -> None:
    # Given a job for half a minute of work, whose client waits for ten seconds
    owner = new_owner(system, "in a hurry")
    job_id = owner.submit(100, cancel_after="10s")
    # Then it ends soon, and keeps what was made
    job = owner.job(job_id, wait=60)
    assert job["status"] == "canceled", system.logs()
    statuses = {image["status"] for image in job["images"]}
    assert statuses == {"completed", "canceled"}, statuses

"""Polls, answered as bytes. The answer of a job that has ended is remembered while it holds.

It holds until the job changes (it is retried, deleted, or given another date), which every poll asks the
database for, whoever has done it; and while its URLs are good for as long as fresh ones would be.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from backend import views
from backend.api import present
from backend.jobs import queries
from backend.jobs.models import ENDED
from backend.jobs.queries import Version
from backend.resources import Resources

KEPT_FOR = timedelta(minutes=1)
KEPT_BYTES = 8 * 1024 * 1024  # in all


@dataclass(frozen=True)
class Answer:
    """What a poll is answered."""

    body: bytes  # JSON
    etag: str  # with its quotes
    ended: bool  # the job


@dataclass(frozen=True)
class _Kept:
    answer: Answer
    version: Version
    until: datetime


class Answers:
    """Reads jobs for polls. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()  # who was asked for last is last
        self._bytes = 0

    def read(self, job_id: UUID, owner: str) -> Answer:
        """The owner's job as it is now. Raises `NotFound`."""
        kept = self._find(job_id)
        if kept is not None and self._version(job_id, owner) == kept.version:
            return kept.answer
        job, version = present.read_with_version(self._resources, job_id, owner)
        body = job.model_dump_json().encode()
        answer = Answer(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', ended=job.status in ENDED)
        if answer.ended:
            self._keep(job_id, _Kept(answer, version, self._good_until(job)))
        return answer

    def _version(self, job_id: UUID, owner: str) -> Version | None:
        with self._resources.db.read_scope() as session:
            return queries.version(session, job_id, owner)

    def _good_until(self, job: views.Job) -> datetime:
        ttl = timedelta(seconds=self._resources.settings.download_url_ttl_s)
        urls = [image.url_expires_at - ttl for image in job.images if image.url_expires_at]
        return min([views.now() + KEPT_FOR, *urls])

    def _find(self, job_id: UUID) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(job_id)
            if kept is None:
                return None
            if kept.until <= views.now():
                self._drop(job_id)
                return None
            self._kept.move_to_end(job_id)
            return kept

    def _keep(self, job_id: UUID, kept: _Kept) -> None:
        with self._lock:
            self._drop(job_id)
            self._kept[job_id] = kept
            self._bytes += len(kept.answer.body)
            while self._bytes > KEPT_BYTES:
                self._drop(next(iter(self._kept)))

    def _drop(self, job_id: UUID) -> None:
        dropped = self._kept.pop(job_id, None)
        if dropped is not None:
            self._bytes -= len(dropped.answer.body)


async def get_answers(request: Request) -> Answers:
    """The app's."""
    return cast("Answers", request.app.state.answers)


AnswersDep = Annotated[Answers, Depends(get_answers)]

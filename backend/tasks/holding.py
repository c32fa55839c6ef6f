"""Keeps hold of what a task has claimed of a job, as long as the task lives: so a death is noticed soon."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from backend.errors import DatabaseUnavailable
from backend.jobs import store
from backend.resources import Resources
from backend.views import now

log = logging.getLogger(__name__)

HELD_FOR = timedelta(seconds=30)  # after the last sign of life
RENEWED_EVERY_S = 10.0


@contextmanager
def holding(parts: Resources, job_id: UUID, who: str) -> Iterator[None]:
    """What was claimed until `HELD_FOR` from now is held for the length of the block."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(parts, job_id, who, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _renew(parts: Resources, job_id: UUID, who: str, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_EVERY_S):
        try:
            with parts.db.session_scope() as session:
                store.renew_claim(session, job_id, who, now() + HELD_FOR)
        except DatabaseUnavailable as exc:  # then nobody else can claim it, either
            log.warning("the claim on job %s can't be renewed now: %s", job_id, exc.detail)

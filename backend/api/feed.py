"""One reader of the event log per process: every open stream and every long poll waits on it.

The database is asked once per interval for all watched jobs together, however many clients watch them.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar, cast
from uuid import UUID

import redis
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from backend.errors import DatabaseUnavailable
from backend.jobs import events, queries
from backend.jobs.models import ENDED
from backend.resources import Resources

INTERVAL_S = 0.2
PROGRESS_AT_ONCE = 500  # jobs: with more of them watched, the eye waits a little longer, but polls don't
STREAMS_READ_AT_ONCE = 8
PREVIEWS_EVERY_S = 0.5  # they are large beside all else

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signs:
    """What nodes say of a job's images while they make them, by index. The newest only."""

    progress: dict[int, float]  # 0 to 1
    previews: dict[int, str]  # how they look by now: JPEG, in base64


@dataclass
class Heard:
    """What was last heard of the watched jobs."""

    newest: dict[UUID, int] = field(default_factory=dict)
    progress: dict[UUID, dict[int, float]] = field(default_factory=dict)
    previews: dict[UUID, dict[int, str]] = field(default_factory=dict)
    known: bool = False  # whether the database answered the last time


@dataclass(frozen=True, eq=False, slots=True)
class _Waiter:
    """Who waits, and what is no news to them."""

    job_id: UUID
    seq: int
    before: Signs
    woken: "asyncio.Future[None]"


class Feed:
    """Watches jobs on behalf of others."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._watched: Counter[UUID] = Counter()
        self._looked_at: Counter[UUID] = Counter()  # those of them whose previews somebody waits for
        self._previews_read_at = float("-inf")
        self._heard = Heard()
        self._readers = CapacityLimiter(STREAMS_READ_AT_ONCE)
        self._waiting: set[_Waiter] = set()
        self._turn = 0  # of the watched jobs, where the next portion begins whose progress is read
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        """Begins to read; call it in the event loop."""
        self._task = asyncio.create_task(self._read_for_ever(), name="feed")

    async def stop(self) -> None:
        """Ends the reading, and lets all who wait go."""
        self.closing = True
        self._wake()
        if self._task:
            self._task.cancel()

    @contextmanager
    def watching(self, job_id: UUID, *, previews: bool = False) -> Iterator[None]:
        """While this is open, the feed reads what happens to the job, and how its images look by now."""
        counters = [self._watched, self._looked_at] if previews else [self._watched]
        for counter in counters:
            counter[job_id] += 1
        try:
            yield
        finally:
            for counter in counters:
                counter[job_id] -= 1
                if not counter[job_id]:
                    del counter[job_id]

    async def wait(self, job_id: UUID, seq: int, seconds: float, seen: Signs | None = None) -> bool:
        """Returns when the job has an event after `seq`, or other signs, or is gone; False: time is up."""
        if self.closing:
            return True
        before = self.signs(job_id) if seen is None else seen
        # Looked at when a round ends: what was heard before may be from before the watching
        waiter = _Waiter(job_id, seq, before, asyncio.get_running_loop().create_future())
        self._waiting.add(waiter)
        try:
            await asyncio.wait_for(waiter.woken, seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True

    def _wake(self) -> None:
        """Lets go those for whom something has changed, and no others: there may be thousands."""
        for waiter in [one for one in self._waiting if self._has_news(one)]:
            if not waiter.woken.done():
                waiter.woken.set_result(None)

    def _has_news(self, waiter: "_Waiter") -> bool:
        heard = self._heard
        if self.closing or not heard.known:
            return self.closing
        job_id, seq = waiter.job_id, waiter.seq
        return heard.newest.get(job_id, seq + 1) > seq or self.signs(job_id) != waiter.before

    async def in_thread(self, read: Callable[..., T], *arguments: object) -> T:
        """Reads for a stream: few at once, so that polls find a thread also when thousands have news."""
        return await to_thread.run_sync(partial(read, *arguments), limiter=self._readers)

    def signs(self, job_id: UUID) -> Signs:
        """What is known of the images in hand."""
        return Signs(self._heard.progress.get(job_id, {}), self._heard.previews.get(job_id, {}))

    async def wait_for_end(self, job_id: UUID, seconds: float) -> None:
        """Returns when the job has ended or is gone, or time is up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        seq = 0
        with self.watching(job_id):
            while not self.closing and (left := end - loop.time()) > 0:
                await self.wait(job_id, seq, left)
                newest = self._heard.newest.get(job_id)
                if newest is None or newest == seq:
                    if self._heard.known and newest is None and await run_in_threadpool(self._ended, job_id):
                        return
                    continue
                seq = newest
                if await run_in_threadpool(self._ended, job_id):
                    return

    def _ended(self, job_id: UUID) -> bool:
        try:
            with self._resources.db.read_scope() as session:
                job = queries.get(session, job_id)
        except DatabaseUnavailable:
            return False
        return job is None or job.status in ENDED

    async def _read_for_ever(self) -> None:
        while True:
            watched = list(self._watched)
            if watched:
                self._heard = await self._read_or_wait(watched, list(self._looked_at))
                self._wake()
            await asyncio.sleep(INTERVAL_S)

    async def _read_or_wait(self, watched: list[UUID], looked_at: list[UUID]) -> Heard:
        try:
            return await run_in_threadpool(self._read, watched, looked_at)
        except Exception:  # whatever it is: all streams of this process depend on the next round
            log.exception("the feed could not read; it goes on")
            return Heard()

    def _read(self, job_ids: list[UUID], looked_at: list[UUID]) -> Heard:
        try:
            with self._resources.db.read_scope() as session:
                newest = events.newest(session, job_ids)
        except DatabaseUnavailable:
            log.warning("the database is away; streams wait for it")
            return Heard()
        try:
            progress = self._read_progress(job_ids)
            return Heard(newest, progress, self._read_previews(looked_at), known=True)
        except redis.RedisError:
            return Heard(newest, known=True)

    def _read_progress(self, job_ids: list[UUID]) -> dict[UUID, dict[int, float]]:
        """Of so many jobs as can be asked for in one round; the others' is that of the rounds before."""
        start = self._turn if self._turn < len(job_ids) else 0
        self._turn = start + PROGRESS_AT_ONCE
        portion = job_ids[start : self._turn]
        kept = {job_id: self._heard.progress[job_id] for job_id in job_ids if job_id in self._heard.progress}
        read = self._resources.signals.progress(portion)
        return kept | {job_id: fractions for job_id, fractions in read.items() if fractions or job_id in kept}

    def _read_previews(self, job_ids: list[UUID]) -> dict[UUID, dict[int, str]]:
        """Those of the last round while they are fresh enough."""
        if not job_ids:
            return {}
        if time.monotonic() - self._previews_read_at < PREVIEWS_EVERY_S:
            return self._heard.previews
        self._previews_read_at = time.monotonic()
        return {job_id: self._resources.signals.previews(job_id) for job_id in job_ids}


async def get_feed(request: Request) -> Feed:
    """The app's feed."""
    return cast("Feed", request.app.state.feed)


FeedDep = Annotated[Feed, Depends(get_feed)]

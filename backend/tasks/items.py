"""Files from outside become images: fetched, written again, stored with their thumbnails.

One task works at a job's items for a while, several side by side, and then sends the job to the end of the
queue. So jobs take turns, however many files each has; a worker holds few pictures at a time; and when it
dies, its claim on the job ends soon, and the sweep sends the job again.
"""

import hashlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import redis
from celery.exceptions import Ignore
from sqlalchemy.orm import Session

from backend import images, resources
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    FanfareError,
    ImageUnreadable,
    ObjectNotFound,
    ObjectTooLarge,
    ReferenceAway,
    ReferenceRefused,
    ReferenceUnavailable,
    StorageError,
    StorageUnavailable,
)
from backend.jobs import fairness, ids, items, queries, store
from backend.jobs.faults import Fault
from backend.jobs.items import Away, Made, Outcome
from backend.jobs.models import OPEN, Job, MediaItem, Status
from backend.products import ids as product_ids
from backend.products import store as products
from backend.products.store import Output
from backend.resources import Resources
from backend.tasks import lifecycle, notify
from backend.tasks.base import PATIENCE, JobTask
from backend.tasks.media import store_thumbnail
from backend.views import now
from contract.queues import PROCESS_ITEMS, priority_of

log = logging.getLogger(__name__)

TURN_S = 20.0  # after which no more items are begun
SIDE_BY_SIDE = 8  # items: most of the time they wait for somebody's server
DECODED_AT_ONCE = 2  # of them: each may take max_image_pixels x 4 bytes, more than once
LOOK_AHEAD = 100  # items that may be begun, while hosts of others have no place free
LOOKS = 10  # each beyond the hosts that have none: a table often has all of one supplier's, then the next's
CLAIM = timedelta(seconds=20)  # renewed as long as the worker lives
BEAT_S = 3.0  # at least so often
PLACE_MARGIN_S = 30  # beyond the longest download, after which a host's place is free again
HOSTS_BUSY_S, HOSTS_REST_S = 1, 10  # after which a job looks again, at most
LEFT_ALONE_S, LONGEST_ALONE_S = 5, 60  # a host that was asked too often, if it does not say how long; at most
MOST_REFUSALS = 20  # of a host in a row, for being asked too often: then it means us, however seldom we ask
SHOWN_EVERY_S = 1.0  # to count all that a job has takes the longer, the more it has
STORAGE_AWAY_S = 5.0
DATABASE_AWAY_S = 60.0  # for longer than a restart takes
DATABASE_ASKED_AGAIN_S = 1.0
LONGEST_WAIT_S = 300

Changed = TypeVar("Changed")

_decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)


@app.task(
    name=PROCESS_ITEMS,
    base=JobTask,
    ignore_result=False,
    soft_time_limit=600,
    time_limit=630,
    **PATIENCE,
)
def process_items(*, job_id: str, run: int, turn: str | None = None) -> dict[str, Any]:
    """One turn of the job. The last one's value is what `AsyncResult(task_id).get()` gives."""
    parts = resources.current()
    current = Turn(parts, UUID(job_id), run, turn or uuid4().hex)
    if current.begin():
        _work(current)
    if not current.is_over:
        raise Ignore  # it goes on, here or elsewhere
    return _resolve(parts, UUID(job_id), run)


def _work(turn: "Turn") -> None:
    """Items are begun as others end, so that slow ones are in nobody's way."""
    until, shown_at = time.monotonic() + TURN_S, float("-inf")
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="items") as pool:
        running: dict[Future[Outcome], UUID] = {}
        while True:
            done = {item_id: future.result() for future, item_id in running.items() if future.done()}
            running = {future: item_id for future, item_id in running.items() if item_id not in done}
            room = 0 if time.monotonic() > until else SIDE_BY_SIDE - len(running)
            for item in _patiently(partial(turn.step, done, room)):
                running[pool.submit(turn.process, item)] = item.id
            if done and not turn.is_over and time.monotonic() - shown_at >= SHOWN_EVERY_S:
                _show_progress(turn)
                shown_at = time.monotonic()
            if not running:
                break
            wait(running, timeout=BEAT_S, return_when=FIRST_COMPLETED)
    if not turn.is_over:
        _send_on(turn)


def _patiently(change: Callable[[], Changed]) -> Changed:
    """Tries again while the database is away for a little: what was made is not made anew for that, and its
    worker not taken for dead. Raises `DatabaseUnavailable` where that lasts.
    """
    until = time.monotonic() + DATABASE_AWAY_S
    while True:
        try:
            return change()
        except DatabaseUnavailable as exc:
            if time.monotonic() > until:
                raise
            log.warning("a turn waits for the database: %s", exc.detail)
            time.sleep(DATABASE_ASKED_AGAIN_S)


def _show_progress(turn: "Turn") -> None:
    """For those who look at Celery's own states."""
    counts = turn.counts()
    meta = {
        "completed": counts.get(Status.COMPLETED, 0),
        "failed": counts.get(Status.FAILED, 0),
        "total": sum(counts.values()),
    }
    lifecycle.show(turn.job_id, meta, lifecycle.PROGRESS)


def _send_on(turn: "Turn") -> None:
    """To the end of the queue. Raises `BrokerUnavailable`: the sweep does it then."""
    next_turn, wait_s, priority = _patiently(turn.hand_over)
    try:
        process_items.apply_async(
            kwargs={"job_id": str(turn.job_id), "run": turn.run, "turn": next_turn},
            task_id=str(turn.job_id),
            countdown=wait_s or None,
            priority=priority,
        )
    except BROKER_ERRORS as exc:
        raise BrokerUnavailable from exc


def _resolve(parts: Resources, job_id: UUID, run: int) -> dict[str, Any]:
    """What Celery users see of the job's end: the truth, in short."""
    with parts.db.read_scope() as session:
        job = queries.get(session, job_id)
    if job is None or job.run != run or job.status in OPEN:
        raise Ignore
    if job.status in (Status.FAILED, Status.CANCELED):
        lifecycle.publish_end(parts, job)
        raise Ignore
    return {
        "task_id": str(job.id),
        "status": job.status.value,
        "completed": job.item_counts.get(Status.COMPLETED, 0),
        "failed": job.item_counts.get(Status.FAILED, 0),
        "total": job.total,
    }


class Turn:
    """What one worker does for one job, as long as it holds the claim.

    The claim is passed from turn to turn by name, and ends by itself when a worker is gone. So a message
    that was sent once more finds the job taken, and does nothing.
    """

    def __init__(self, parts: Resources, job_id: UUID, run: int, name: str) -> None:
        self.job_id, self.run = job_id, run
        self.is_over = False  # the job has ended, or is not ours any more
        self._parts = parts
        self._name = name
        self._input: Mapping[str, Any] = {}
        self._in_hand: set[UUID] = set()
        self._hosts: dict[UUID, str] = {}  # where those in hand have a place
        self._alone = True  # there may be some that others had in hand who are gone
        self._busy: set[str] = set()  # hosts that had no place the last time that items were begun

    def begin(self) -> bool:
        """Claims the job. False: there is nothing to do for it, or somebody else is at it."""
        with self._parts.db.session_scope() as session:
            job = store.begin(session, self.job_id, now(), self.run)
            if job is None:
                self.is_over = True
                return False
            if not store.claim(job, self._name, _claimed_until(), now()):
                return False
            # The message knows the old name: if it comes once more while we are at it, it is nobody's.
            self._name = job.claimed_by = uuid4().hex
            self._input = job.input
        notify.kick(self._parts, job)
        return True

    def step(self, done: Mapping[UUID, Outcome], room: int) -> list[MediaItem]:
        """Writes down how items went, and takes others in hand, at most `room`.

        May be done once more, where the database did not say whether it was done.
        """
        self._in_hand -= done.keys()
        self._leave_hosts(done)
        with self._parts.db.session_scope() as session:
            job = store.begin(session, self.job_id, now(), self.run)
            if job is None or job.claimed_by != self._name:
                self.is_over = True
                useless = [] if job else self._unwanted(session, done)
                begun = []
            else:
                job.claimed_until = _claimed_until()
                useless = self._end_items(session, job, done)
                self.is_over = store.end_items(session, job, now(), self._parts.settings.job_ttl)
                begun = [] if self.is_over else self._begin_items(session, job, room)
        self._in_hand.update(item.id for item in begun)
        self._delete(useless)
        if job is not None:
            notify.kick(self._parts, job)
        return begun

    def counts(self) -> Mapping[Status, int]:
        """How many of the job's items are in each state."""
        with self._parts.db.read_scope() as session:
            return items.counts(session, self.job_id)

    def hand_over(self) -> tuple[str, int, int]:
        """Who may go on, in how many seconds (whole ones: on RabbitMQ nothing waits for less), and how urgent
        that is.
        """
        next_turn, wait_s = uuid4().hex, min(map(self._rests_for, self._busy), default=0)
        with self._parts.db.session_scope() as session:
            job = store.lock(session, self.job_id)
            if job is None or job.claimed_by != self._name:
                self.is_over = True
                raise Ignore
            if not self._busy and (due_at := items.next_due(session, job.id)):
                wait_s = max(math.ceil((due_at - now()).total_seconds()), 0)
            job.claimed_by, job.claimed_until = next_turn, _claimed_until() + timedelta(seconds=wait_s)
            job.updated_at = now()
            band = fairness.band_of_job(session, job)
        return next_turn, wait_s, priority_of(band, self._parts.settings.broker_url)

    # -- which are next -------------------------------------------------------------------------------

    def _begin_items(self, session: Session, job: Job, room: int) -> list[MediaItem]:
        begun: list[MediaItem] = []
        if self._alone and not self._in_hand and room:
            at = now()
            again = items.take_interrupted(session, job, at)
            products.record_failures(session, job.id, at)
            self._alone = again is not None
            if again:
                self._enter_host(again)  # it may still have the place of the one that is gone
                return [again]
        if self._alone or not room:
            return begun
        busy: set[str] = set()  # asked once each: others wait for this transaction
        sites: set[str] = set()  # of these
        for _ in range(LOOKS):
            found = items.due(session, job.id, now(), LOOK_AHEAD, passed_over=sites)
            for item in found:
                if len(begun) == room:
                    break
                if _host(item) not in busy and self._enter_host(item):
                    items.begin(item, now())
                    begun.append(item)
                else:
                    busy.add(_host(item))
                    sites.add(_site(item))
            if len(begun) == room or len(found) < LOOK_AHEAD:
                break
        self._busy = busy
        return begun

    def _enter_host(self, item: MediaItem) -> bool:
        """Whether its host has a place for us: no server is asked for much at once, by however many jobs."""
        if item.source_url is None:
            return True
        settings, host = self._parts.settings, _host(item)
        seconds = math.ceil(settings.reference_timeout_s) + PLACE_MARGIN_S
        try:
            if not self._parts.signals.take_place(host, str(item.id), settings.downloads_per_host, seconds):
                return False
        except redis.RedisError:
            return True  # better than to wait for it
        self._hosts[item.id] = host
        return True

    def _rests_for(self, host: str) -> int:
        """How soon it makes sense to look whether the host has a place, in seconds."""
        with suppress(redis.RedisError):
            return min(max(self._parts.signals.rests_for(host), HOSTS_BUSY_S), HOSTS_REST_S)
        return HOSTS_BUSY_S

    def _leave_alone(self, host: str, asked_s: int | None) -> bool:
        """Whether it makes sense to ask the host later."""
        with suppress(redis.RedisError):
            if self._parts.signals.count_refusal(host) > MOST_REFUSALS:
                return False
            self._parts.signals.leave_alone(host, min(asked_s or LEFT_ALONE_S, LONGEST_ALONE_S))
        return True

    def _leave_hosts(self, done: Mapping[UUID, Outcome]) -> None:
        for item_id, outcome in done.items():
            host = self._hosts.pop(item_id, None)
            if host:
                with suppress(redis.RedisError):  # it ends by itself
                    self._parts.signals.leave_place(host, str(item_id), was_served=isinstance(outcome, Made))

    # -- how they went --------------------------------------------------------------------------------

    def _end_items(self, session: Session, job: Job, done: Mapping[UUID, Outcome]) -> list[str]:
        """Writes it down; the keys of what is stored and not needed any more."""
        found = [session.get_one(MediaItem, item_id) for item_id in done]
        # They may hold what the images do not any more, such as where they were taken.
        useless = [
            ids.upload_key(job.id, item.index)
            for item in found
            if item.source_url is None and isinstance(done[item.id], Made)
        ]
        unwritten = [item for item in found if item.status is Status.IN_PROGRESS]
        for item in sorted(unwritten, key=lambda one: one.product_id or job.id):  # as others lock products
            outcome = done[item.id]
            if item.product_id and isinstance(outcome, Made):
                outcome, replaced = self._record(session, item, item.product_id, outcome)
                useless += replaced
            items.end(session, job, item, outcome, now())
            if item.product_id and item.status is Status.FAILED:
                fault = Fault(item.error_code or "", item.error_message or "", bool(item.error_retryable))
                products.record_failure(
                    session, item.product_id, item.source_url or "", fault, job_id=job.id, now=now()
                )
        return useless

    def _record(
        self, session: Session, item: MediaItem, product_id: UUID, made: Made
    ) -> tuple[Made | Fault, list[str]]:
        """The pair of input and output; what it replaces is not needed any more. Where another job may have
        stored the same anew, and not noted it yet, that is left to `prune`.
        """
        output = Output(
            key=made.key, content_type=made.content_type, bytes=made.bytes, sha256=made.sha256,
            width=made.width, height=made.height, scale=self._input["scale"], thumbnails=made.thumbnails,
        )  # fmt: skip
        replaced = products.record_output(
            session, product_id, item.source_url or "", output, job_id=self.job_id, now=now()
        )
        if replaced is None:
            return Fault(
                "product_not_found", "The product, or this image of it, was deleted.", retryable=False
            ), made.all_keys()
        return made, [] if replaced and items.is_made_elsewhere(session, item) else replaced

    def _unwanted(self, session: Session, done: Mapping[UUID, Outcome]) -> list[str]:
        """What was made after the job's end. What somebody else may have made as well, and noted, stays: it
        has the same name. So after a retry all of it stays: it is being made once more.
        """
        folder, found = ids.folder(self.job_id), []
        job = session.get(Job, self.job_id)
        if job is not None and job.run != self.run:
            return []
        for item_id, outcome in done.items():
            item = session.get(MediaItem, item_id)
            if isinstance(outcome, Made) and (item is None or item.key is None):
                found += [key for key in outcome.all_keys() if key.startswith(folder)]
        return found

    def _delete(self, keys: list[str]) -> None:
        try:
            if keys:
                self._parts.storage.delete(keys)
        except StorageError as exc:
            log.warning("objects of job %s are left to be pruned: %s", self.job_id, exc.detail)

    # -- one item, in a thread ------------------------------------------------------------------------

    def process(self, item: MediaItem) -> Outcome:
        """Makes and stores what is to be made of one file. Whatever happens to it is its own."""
        try:
            return self._make(item)
        except ReferenceAway as exc:
            fault = Fault("source_unavailable", exc.detail, retryable=True)
            if exc.asked_too_often and not self._leave_alone(_host(item), exc.retry_after_s):
                return fault
            return Away(fault, _pause(item.attempts, exc.retry_after_s))
        except StorageUnavailable as exc:
            return Away(_fault(exc), timedelta(seconds=STORAGE_AWAY_S * (1 + random.random())), counts=False)  # noqa: S311
        except FanfareError as exc:
            return _fault(exc)
        except Exception:
            log.exception("item %s of job %s", item.index, self.job_id)
            return Fault("internal", "Something went wrong on our side. Retry may help.", retryable=True)

    def _make(self, item: MediaItem) -> Made:
        data = self._fetch(item)
        with _decoding:
            made = images.optimize(
                data,
                max_pixels=self._parts.settings.max_image_pixels,
                scale=self._input["scale"],
                boxes=[(size, size) for size in self._input["thumbnail_sizes"]],
                fmt=self._parts.settings.thumbnail_format,
            )
        return self._store(item, made, len(data))

    def _fetch(self, item: MediaItem) -> bytes:
        if item.source_url is not None:
            return self._parts.downloader.fetch(item.source_url)
        limit = self._parts.settings.max_file_bytes
        return self._parts.storage.get(ids.upload_key(self.job_id, item.index), max_bytes=limit)

    def _store(self, item: MediaItem, made: images.Optimized, given_bytes: int) -> Made:
        """By names that say what is in them: caches may keep it for ever."""
        digest = hashlib.sha256(made.data).hexdigest()
        stem = f"{_folder(item)}{digest[:16]}"
        key = f"{stem}.{_extension(made.content_type)}"
        self._parts.storage.put(key, made.data, made.content_type, public=True)
        return Made(
            key=key,
            content_type=made.content_type,
            bytes=len(made.data),
            given_bytes=given_bytes,
            sha256=digest,
            width=made.width,
            height=made.height,
            thumbnails=[self._store_thumbnail(stem, one) for one in made.thumbnails],
        )

    def _store_thumbnail(self, stem: str, one: images.Thumbnail) -> dict[str, Any]:
        key = f"{stem}-{one.width}x{one.height}.{_extension(one.content_type)}"
        return store_thumbnail(self._parts, key, one, public=True)


def _claimed_until() -> datetime:
    return now() + CLAIM


def _host(item: MediaItem) -> str:
    """Empty for uploads."""
    return (urlsplit(item.source_url or "").hostname or "").lower()


def _site(item: MediaItem) -> str:
    """How the URLs of others begin that lead to the same host."""
    return "/".join((item.source_url or "").split("/", 3)[:3]) + "/"


def _folder(item: MediaItem) -> str:
    if item.product_id:
        return product_ids.image_folder(item.product_id, item.source_url or "")
    return ids.item_folder(item.job_id, item.index)


def _extension(content_type: str) -> str:
    return content_type.removeprefix("image/")


def _pause(attempts: int, asked_s: int | None) -> timedelta:
    """As long as its server has asked for, or ever longer; not all at once."""
    seconds = asked_s or 2.0**attempts
    return timedelta(seconds=min(seconds, LONGEST_WAIT_S) * (1 + random.random() / 2))  # noqa: S311


def _fault(exc: FanfareError) -> Fault:
    """What the client is told of it."""
    if isinstance(exc, ObjectNotFound):
        return Fault("not_uploaded", "The file was not uploaded.", retryable=True)
    if isinstance(exc, ObjectTooLarge):
        return Fault("file_too_large", exc.detail, retryable=False)
    if isinstance(exc, ReferenceUnavailable):
        return Fault("source_unavailable", exc.detail, retryable=True)
    if isinstance(exc, ReferenceRefused):
        return Fault("source_refused", exc.detail, retryable=False)
    if isinstance(exc, ImageUnreadable):
        return Fault(exc.code, exc.detail, retryable=False)
    return Fault(exc.code, exc.detail, exc.retryable)

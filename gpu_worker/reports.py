"""What the node tells the backend through the queue: an image has begun, an image has ended.

The backend counts a job's images by these reports, so the message of an image is not acknowledged before its
end is reported: whatever happens between, the image's message comes again, and its kept result is reported.
Reports that come close together travel in one message; that spares the backend most of its transactions.
Results are kept at the store first: whoever gets the image's message again reports them once more.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from uuid import UUID

import redis
from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import OperationalError

from contract.messages import FailureCode, GeneratedImage, ImageFailure, ImageStarted
from contract.queues import TAKE_REPORTS
from contract.signals import Signals
from gpu_worker.batcher import Draining
from gpu_worker.fail_open import FailOpen

Result = GeneratedImage | ImageFailure

logger = logging.getLogger(__name__)

END_WAITS_S = 0.05  # an end waits so long for others to travel with
START_WAITS_S = 0.2  # the same of a begin: whoever is faster is reported as begun and ended at once
MOST_AT_ONCE = 200  # reports in one message
# Not the end of an image: it comes again with another URL, or nobody will ask for it
NOT_KEPT = {FailureCode.UPLOAD_EXPIRED, FailureCode.CANCELED}
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0  # between tries, while the broker is away


@dataclass(frozen=True)
class _Report:
    message: ImageStarted | Result
    due: float  # time.monotonic()
    sent: "Future[None]" = field(default_factory=Future)


class Reports(threading.Thread):
    """One thread that publishes; any number of threads that report. Should it die, it calls `on_death`."""

    def __init__(
        self, app: Celery, signals: Signals, fail_open: FailOpen, on_death: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name="reports", daemon=True)
        self._signals = signals
        self._fail_open = fail_open
        self._on_death = on_death
        self._app = app
        self._news: queue.SimpleQueue[_Report | None] = queue.SimpleQueue()
        self._giving_up = threading.Event()

    def started(self, started: ImageStarted) -> None:
        """Returns at once. A begin may get lost: its end tells as well that it was."""
        self._news.put(_Report(started, time.monotonic() + START_WAITS_S))

    def ended(self, result: Result) -> None:
        """Returns once the broker has it, however long that takes. `Draining`: the node leaves first."""
        report = _Report(result, time.monotonic() + END_WAITS_S)
        self._news.put(report)
        report.sent.result()

    def give_up(self) -> None:
        """The node leaves: a broker that is away is waited for no longer."""
        self._giving_up.set()

    def stop(self) -> None:
        """Ends the thread after what is at hand."""
        self._news.put(None)

    def run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._publish(batch)
        except BaseException:  # a defect of ours: without reports this process is of no more use
            logger.critical("The reports' thread died; the launcher starts another process", exc_info=True)
            self._on_death()

    def _next_batch(self) -> list[_Report] | None:
        """Blocks until one is due, and takes what has come by then. None: the end."""
        first = self._news.get()
        if first is None:
            return None
        batch, due = [first], first.due
        while len(batch) < MOST_AT_ONCE:
            try:
                report = self._news.get(timeout=max(due - time.monotonic(), 0))
            except queue.Empty:
                break
            if report is None:
                self._news.put(None)
                break
            batch.append(report)
            due = min(due, report.due)
        return batch

    def _publish(self, batch: list[_Report]) -> None:
        pause = FIRST_PAUSE_S
        self._keep(batch)
        while not self._sent(batch):
            if self._giving_up.wait(pause):
                for report in batch:
                    report.sent.set_exception(Draining())
                return
            pause = min(pause * 2, LONGEST_PAUSE_S)
        for report in batch:
            report.sent.set_result(None)

    def _keep(self, batch: list[_Report]) -> None:
        if kept := to_keep(report.message for report in batch):
            self._fail_open(lambda: self._signals.keep_results(kept), None)

    def _sent(self, batch: list[_Report]) -> bool:
        wire = [report.message.to_wire() for report in batch]
        try:
            self._app.send_task(TAKE_REPORTS, (wire,), ignore_result=True, argsrepr=f"({len(wire)} reports)")
        except (OperationalError, AMQPError, redis.RedisError, OSError) as exc:
            logger.warning("The broker takes no reports (%s): trying again", exc)
            return False
        return True


def to_keep(messages: Iterable[ImageStarted | Result]) -> list[tuple[UUID, int, str]]:
    """What `Signals.keep_results` is given of these."""
    return [
        (message.image_id, message.run, message.model_dump_json())
        for message in messages
        if isinstance(message, GeneratedImage)
        or (isinstance(message, ImageFailure) and message.code not in NOT_KEPT)
    ]

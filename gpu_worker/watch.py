"""The watch over the images in hand: reports their progress, learns of canceled jobs, in the background."""

import itertools
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from contract.signals import Signals
from gpu_worker.batcher import Served
from gpu_worker.fail_open import FailOpen

TICK_S = 0.05  # cancel flags are read this often: a device should not work for nobody
REPORT_EVERY = 4  # ticks; progress is reported this often


@dataclass
class _InHand:
    job_id: UUID
    run: int
    index: int
    future: "Future[Served]"
    fraction: float = 0.0
    reported: float = 0.0
    preview: bytes | None = None  # the newest that is not reported yet
    dropped: bool = False


class NodeWatch(threading.Thread):
    """An `engines.base.Watch`: its calls only touch memory; this thread talks to the store."""

    def __init__(self, signals: Signals, fail_open: FailOpen) -> None:
        super().__init__(name="watch", daemon=True)
        self._signals = signals
        self._fail_open = fail_open
        self._in_hand: dict[str, _InHand] = {}
        self._changed = threading.Condition()
        self._stopped = False

    # -- called by engines ----------------------------------------------------------------------------

    def progress(self, request_id: str, fraction: float) -> None:
        image = self._in_hand.get(request_id)
        if image is not None:
            image.fraction = min(max(fraction, 0.0), 1.0)

    def preview(self, request_id: str, jpeg: bytes) -> None:
        image = self._in_hand.get(request_id)
        if image is not None:
            image.preview = jpeg

    def canceled(self, request_id: str) -> bool:
        image = self._in_hand.get(request_id)
        return image is not None and image.dropped

    # -- called by tasks ------------------------------------------------------------------------------

    def track(self, request_id: str, job_id: UUID, run: int, index: int, future: "Future[Served]") -> None:
        """Watches over this request until its future is done."""
        with self._changed:
            self._in_hand[request_id] = _InHand(job_id, run, index, future)
            self._changed.notify()
        future.add_done_callback(lambda _: self._forget(request_id))

    def drop(self, request_id: str) -> None:
        """Nobody wants this image any more, be it in the line or in the engine."""
        image = self._in_hand.get(request_id)
        if image is not None:
            image.dropped = True
            image.future.cancel()  # takes it out of the line; one that is being made sees `canceled`

    def drop_all(self) -> None:
        """The node must leave now."""
        for request_id in list(self._in_hand):
            self.drop(request_id)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    # -- the thread -----------------------------------------------------------------------------------

    def run(self) -> None:
        for tick in itertools.count():
            if not self._wait_for_work():
                return
            if tick % REPORT_EVERY == 0:
                self._report_progress()
            self._learn_of_canceled_jobs()
            time.sleep(TICK_S)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._in_hand and not self._stopped:
                self._changed.wait()
            return not self._stopped

    def _forget(self, request_id: str) -> None:
        with self._changed:
            self._in_hand.pop(request_id, None)

    def _report_progress(self) -> None:
        with self._changed:
            images = list(self._in_hand.values())
        news: dict[UUID, dict[int, float]] = {}
        for image in images:
            fraction = image.fraction
            if fraction != image.reported:
                image.reported = fraction
                news.setdefault(image.job_id, {})[image.index] = fraction
            jpeg, image.preview = image.preview, None
            if jpeg is not None:
                show = partial(self._signals.report_preview, image.job_id, image.index, jpeg)
                self._fail_open(show, None)
        if news:
            self._fail_open(lambda: self._signals.report_progress(news), None)

    def _learn_of_canceled_jobs(self) -> None:
        with self._changed:
            runs = {request_id: (image.job_id, image.run) for request_id, image in self._in_hand.items()}
        nothing: dict[UUID, int] = {}
        ask = self._signals.unwanted
        unwanted = self._fail_open(lambda: ask({job_id for job_id, _ in runs.values()}), nothing)
        for request_id, (job_id, run) in runs.items():
            if run <= unwanted.get(job_id, 0):
                self.drop(request_id)

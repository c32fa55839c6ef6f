"""The orderly end of a node: take no more, finish what is begun, hand back the rest."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

LEAVE_S = 15.0  # for the worker to end, once nothing is in hand
HAND_BACK_S = 5.0  # for engines to notice that nobody wants their images any more


@dataclass(frozen=True)
class Steps:
    """What a drain consists of, in this order."""

    stop_taking: Callable[[], None]  # the queue gives nothing more; what waits is handed back
    in_hand: Callable[[], int]  # images that are still being made or stored
    drop: Callable[[], None]  # the engine may stop: its images are handed back
    abandon: Callable[[], None]  # nobody waits for the engine any longer
    leave: Callable[[int], None]  # ends the process with this exit code


class Drain(threading.Thread):
    """Runs once it is asked for. Asked for again, it waits no longer."""

    def __init__(self, grace_s: float, exit_hard: Callable[[], object] | None = None) -> None:
        super().__init__(name="drain", daemon=True)
        self._grace_s = grace_s
        self._exit_hard = exit_hard  # for a library that waits for a broker which is gone for good
        # A SimpleQueue's put is re-entrant: the only thing here that a signal handler may touch
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._steps: Steps | None = None
        self.asked = threading.Event()

    def set_steps(self, steps: Steps) -> None:
        """To be called before `start`."""
        self._steps = steps

    def request(self, exit_code: int = 0) -> None:
        """Asks for the end. May be called from a signal handler, any number of times."""
        self._requests.put(exit_code)

    def run(self) -> None:
        exit_code = self._requests.get()
        self.asked.set()
        steps = self._steps
        assert steps is not None
        if self._exit_hard:
            last = threading.Timer(self._grace_s + 2 * HAND_BACK_S + LEAVE_S, self._exit_hard)
            last.daemon = True
            last.start()
        logger.info("Leaving: taking no more work, %d images in hand", steps.in_hand())
        steps.stop_taking()
        if not self._empty_within(self._grace_s, steps):
            logger.warning("Handing back %d images that are begun", steps.in_hand())
            steps.drop()
            if not self._empty_within(HAND_BACK_S, steps):
                steps.abandon()
                self._empty_within(HAND_BACK_S, steps)
        steps.leave(exit_code)

    def _empty_within(self, seconds: float, steps: Steps) -> bool:
        """Waits until nothing is in hand, for so long at the most, or until asked again."""
        until = time.monotonic() + seconds
        while steps.in_hand():
            left = until - time.monotonic()
            if left <= 0:
                return False
            try:
                self._requests.get(timeout=min(left, 0.05))
            except queue.Empty:
                continue
            return not steps.in_hand()
        return True

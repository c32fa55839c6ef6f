"""Says every few seconds that this node is here, and what it is doing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from contract.messages import NodeAnnouncement
from contract.signals import Signals
from gpu_worker.fail_open import FailOpen

State = Literal["starting", "ready", "draining"]


@dataclass
class Tally:
    """What a node has done since its start."""

    running: int = 0  # images in hand
    done: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def one_in_hand(self) -> Iterator[None]:
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1

    def count(self, *, made: bool) -> None:
        with self._lock:
            if made:
                self.done += 1
            else:
                self.failed += 1


class Announcer(threading.Thread):
    """Announces until it is told to leave; a store that is away is tried again at each turn."""

    def __init__(
        self, signals: Signals, fail_open: FailOpen, describe: Callable[[], NodeAnnouncement], every_s: float
    ) -> None:
        super().__init__(name="announcer", daemon=True)
        self._signals = signals
        self._fail_open = fail_open
        self._describe = describe
        self._every_s = every_s
        self._leaving = threading.Event()
        self._news = threading.Event()

    def run(self) -> None:
        while not self._leaving.is_set():
            self._news.clear()
            self._fail_open(lambda: self._signals.announce(self._describe()), None)
            self._news.wait(self._every_s)

    def tell_news(self) -> None:
        """The state has changed: announce it at once."""
        self._news.set()

    def leave(self) -> None:
        """The last word: the node is gone. Waits for the thread, so that nothing is announced after it."""
        self._leaving.set()
        self._news.set()
        if self.is_alive():
            self.join(timeout=10)
        self._fail_open(lambda: self._signals.leave(self._describe().node), None)

"""Goes on without a service that is away: what is asked of it is never worth an image."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_S = 5.0  # after a failure the service is left alone for so long


class FailOpen:
    """Asks, and answers with a default where the service is away. Says so once per outage."""

    def __init__(
        self, service: str, errors: tuple[type[Exception], ...], *, pause_s: float = PAUSE_S
    ) -> None:
        self._service = service
        self._errors = errors
        self._pause_s = pause_s
        self._away_until = 0.0
        self._away = False
        self._lock = threading.Lock()

    def __call__(self, ask: Callable[[], T], otherwise: T) -> T:
        """What `ask` returns; `otherwise`, if it raises one of the service's errors or did so just now."""
        if self._away and time.monotonic() < self._away_until:
            return otherwise
        try:
            answer = ask()
        except self._errors as exc:
            self._failed(exc)
            return otherwise
        self._worked()
        return answer

    def _failed(self, exc: Exception) -> None:
        with self._lock:
            news = not self._away
            self._away = True
            self._away_until = time.monotonic() + self._pause_s
        if news:
            logger.warning("%s is away (%s): going on without it", self._service, exc)

    def _worked(self) -> None:
        if not self._away:
            return
        with self._lock:
            news = self._away
            self._away = False
        if news:
            logger.info("%s is back", self._service)

"""The vigil over the engine: a device that hangs, hangs for ever, and all who wait for it would, too."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Vigil(threading.Thread):
    """Calls `on_stall`, once, when the engine has given no sign of life amid a batch for `patience_s`."""

    def __init__(
        self, silent_for: Callable[[], float], patience_s: float, on_stall: Callable[[], None]
    ) -> None:
        super().__init__(name="vigil", daemon=True)
        self._silent_for = silent_for
        self._patience_s = patience_s
        self._on_stall = on_stall
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(min(LOOK_EVERY_S, self._patience_s / 4)):
            silence = self._silent_for()
            if silence > self._patience_s:
                logger.critical("The engine has given no sign for %.0f s: this process ends", silence)
                self._on_stall()
                return

    def stop(self) -> None:
        self._stopped.set()

"""The one thread that owns the engine: takes batches, has them made, puts outcomes into futures."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress

from contract.messages import FailureCode
from gpu_worker.batcher import Batcher, Draining, EngineDied, Served, Waiting
from gpu_worker.engines.base import Engine, EngineLost, Failure, ImageRequest, Outcome, Picture, Watch

logger = logging.getLogger(__name__)

ENGINE_FAILED = Failure(
    FailureCode.ENGINE_FAILED, "The image could not be made: the engine failed.", retryable=True
)
OUT_OF_MEMORY = Failure(
    FailureCode.OUT_OF_MEMORY, "The node ran out of memory with this image.", retryable=True
)


class _Stamped:
    """A watch that notes when it was last used: each call of an engine is a sign of life."""

    def __init__(self, watch: Watch, note: Callable[[], None]) -> None:
        self._watch = watch
        self._note = note

    def progress(self, request_id: str, fraction: float) -> None:
        self._note()
        self._watch.progress(request_id, fraction)

    def preview(self, request_id: str, jpeg: bytes) -> None:
        self._watch.preview(request_id, jpeg)

    def canceled(self, request_id: str) -> bool:
        self._note()
        return self._watch.canceled(request_id)


class EngineThread(threading.Thread):
    """Survives whatever an engine raises. Should it die all the same, it calls `on_death`, once."""

    def __init__(self, engine: Engine, batcher: Batcher, watch: Watch, on_death: Callable[[], None]) -> None:
        super().__init__(name="engine", daemon=True)
        self._engine = engine
        self._batcher = batcher
        self._watch = _Stamped(watch, self._note)
        self._on_death = on_death
        self._in_work: list[Waiting] = []
        self._last_sign = 0.0  # time.monotonic()

    def run(self) -> None:
        try:
            while self._serve_next():
                pass
        except BaseException:  # a lost device, or a defect of ours: this process is of no more use
            logger.critical("The engine thread died; the launcher starts another process", exc_info=True)
            self._on_death()
            self.hand_back(EngineDied)
        else:
            self._close_engine()

    def silent_for(self) -> float:
        """Seconds since the engine gave a sign of life; 0 while it has nothing to do. From any thread."""
        return time.monotonic() - self._last_sign if self._in_work else 0.0

    def _note(self) -> None:
        self._last_sign = time.monotonic()

    def hand_back(self, reason: type[Draining] = Draining) -> None:
        """Lets nobody wait any longer for what is in the engine: those futures end in `reason`."""
        for waiting in list(self._in_work):
            with suppress(InvalidStateError):  # it was done in this very moment
                waiting.future.set_exception(reason())

    def _serve_next(self) -> bool:
        """Serves one batch; False once there will be no more. Keeps nothing alive when it returns."""
        batch = self._batcher.next_batch()
        if batch is None:
            return False
        self._note()
        self._in_work = batch
        for waiting in batch:
            waiting.on_begin()
        begun = time.monotonic()
        outcomes = self._outcomes([waiting.request for waiting in batch])
        took = time.monotonic() - begun
        for waiting, outcome in zip(batch, outcomes, strict=True):
            with suppress(InvalidStateError):  # it was handed back meanwhile
                waiting.future.set_result(Served(outcome, begun, took))
        self._in_work = []
        return True

    def _outcomes(self, batch: Sequence[ImageRequest]) -> list[Outcome]:
        """One outcome per request, whatever the engine does."""
        try:
            outcomes = self._engine.generate(batch, self._watch)
        except EngineLost:
            raise
        except MemoryError as exc:
            self._bury(exc)
            return [OUT_OF_MEMORY] * len(batch)
        except BaseException as exc:  # noqa: BLE001 - even SystemExit: an engine's library may not end the node
            self._bury(exc)
            return [ENGINE_FAILED] * len(batch)
        if len(outcomes) != len(batch):
            logger.error("The engine gave %d outcomes for %d requests", len(outcomes), len(batch))
            return [ENGINE_FAILED] * len(batch)
        return [_checked(request, outcome) for request, outcome in zip(batch, outcomes, strict=True)]

    def _bury(self, exc: BaseException) -> None:
        """Logs an exception and empties its frames: what they hold (tensors) lives as long as they do.

        The log gets text: a handler may keep its records, and with them the exception.
        """
        logger.error("The engine failed\n%s", "".join(traceback.format_exception(exc)))
        link: BaseException | None = exc
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception:
            logger.exception("The engine could not be closed")


def _checked(request: ImageRequest, outcome: Outcome) -> Outcome:
    """The outcome, if it keeps the promises of the engine protocol."""
    if isinstance(outcome, Failure):
        return outcome
    asked = (request.width, request.height)
    if isinstance(outcome, Picture) and outcome.image.size == asked and outcome.image.mode in ("RGB", "RGBA"):
        return outcome
    logger.error("The engine broke its promise: %r where %dx%d was asked for", outcome, *asked)
    return ENGINE_FAILED

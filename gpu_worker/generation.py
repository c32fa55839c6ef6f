"""The use case: one message in, one result out, whatever happens on the way."""

import logging
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from contract.messages import (
    FailureCode,
    GeneratedImage,
    GenerateImage,
    ImageFailure,
    ImageResult,
    ImageStarted,
    ModelCard,
    Timings,
    seconds_left,
)
from contract.signals import Delivery, Signals
from gpu_worker.announcer import Tally
from gpu_worker.batcher import Batcher, Draining, EngineDied, Served
from gpu_worker.engines.base import CANCELED, Failure, ImageRequest, Picture
from gpu_worker.fail_open import FailOpen
from gpu_worker.finisher import Finisher, Stored
from gpu_worker.reference import ReferenceFailed, References, Start
from gpu_worker.reports import Reports, Result
from gpu_worker.upload import EXPIRED, UploadFailed, expired
from gpu_worker.watch import NodeWatch

logger = logging.getLogger(__name__)

ENGINE_TURNS = 3  # how often an image is given to the engine within one delivery
FIRST_PAUSE_S = 0.5  # between the turns; doubled each time, with jitter
AGAIN = {FailureCode.OUT_OF_MEMORY, FailureCode.ENGINE_FAILED, FailureCode.PROVIDER_FAILED}

TOO_LATE = Failure(
    FailureCode.DEADLINE_EXCEEDED, "The image was not made before its deadline.", retryable=True
)
POISON = Failure(
    FailureCode.WORKER_LOST, "The nodes that worked on this image were lost each time.", retryable=True
)
OTHER_REVISION = Failure(
    FailureCode.MODEL_NOT_AVAILABLE, "The node has another revision of this model.", retryable=True
)
NOT_HERE = Failure(FailureCode.MODEL_NOT_AVAILABLE, "The node doesn't have this model.", retryable=True)

_RESULT: TypeAdapter[Result] = TypeAdapter(ImageResult)
_NOBODY = UUID(int=0)


class NotMade(Exception):
    """Ends the work on one image; its failure is the result."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


@dataclass(frozen=True)
class Parts:
    """What an image goes through on its node."""

    batcher: Batcher
    watch: NodeWatch
    finisher: Finisher
    signals: Signals
    fail_open: FailOpen
    reports: Reports
    tally: Tally
    references: References = field(default_factory=References)


class Generation:
    """Makes the images of one node. `make` may run in many threads at once."""

    def __init__(
        self, node: str, models: Mapping[str, ModelCard], parts: Parts, *, attempts_allowed: int
    ) -> None:
        self._node = node
        self._models = models
        self._parts = parts
        self._attempts_allowed = attempts_allowed
        self._in_hand: dict[tuple[UUID, int], Future[Result]] = {}
        self._lock = threading.Lock()

    def make(self, raw: object) -> Result:
        """One `GenerateImage` in its wire form -> its result, which is reported. Raises `Draining` alone."""
        try:
            message = GenerateImage.model_validate(raw)
        except ValidationError as exc:
            faults = exc.errors(include_input=False, include_url=False)  # the input may hold a signed URL
            logger.error("A message that is not valid: %s", faults)  # noqa: TRY400 - the faults tell all
            return self._give_up(result_for_unreadable(raw, self._node))
        try:
            return self._make_once(message)
        except Draining:
            raise
        except Exception:
            logger.exception("A defect of the node")
            text = "The node failed in a way that it doesn't know."
            return self._give_up(result_for_unreadable(raw, self._node, FailureCode.INTERNAL, text))

    def in_hand(self) -> tuple[UUID, ...]:
        """Ids of the images that are being made, stored or reported."""
        with self._lock:
            return tuple(image_id for image_id, _ in self._in_hand)

    def _give_up(self, failure: ImageFailure) -> ImageFailure:
        """Reports a failure, unless not even its job can be told."""
        if failure.job_id != _NOBODY:
            self._parts.reports.ended(failure)
        return failure

    def _make_once(self, message: GenerateImage) -> Result:
        """A message that is delivered again while its image is in hand waits for that one's result."""
        mine: Future[Result] = Future()
        with self._lock:
            first = self._in_hand.setdefault((message.image_id, message.run), mine)
        if first is not mine:
            return first.result()
        try:
            with self._parts.tally.one_in_hand():
                result = self._repeat_or_make(message)
            mine.set_result(result)
        except BaseException as exc:
            mine.set_exception(exc)
            raise
        finally:
            with self._lock:
                del self._in_hand[message.image_id, message.run]
        return result

    def _repeat_or_make(self, message: GenerateImage) -> Result:
        receive = self._parts.signals.receive
        delivery = self._parts.fail_open(
            lambda: receive(message.job_id, message.image_id, message.run), Delivery()
        )
        result = _read(delivery.kept_result)
        if result is None:
            result = self._attempt(message, delivery)
            self._parts.tally.count(made=isinstance(result, GeneratedImage))
        self._parts.reports.ended(result)
        return result

    def _attempt(self, message: GenerateImage, delivery: Delivery) -> Result:
        attempt = 0
        try:
            self._refuse_what_is_of_no_use(message, delivery)
            attempt = delivery.number
            self._refuse_poison(message, attempt)
            return self._made(message, attempt)
        except NotMade as exc:
            logger.info("Image %s failed: %s", message.image_id, exc.failure.code)
            if exc.failure.code is FailureCode.UPLOAD_EXPIRED:
                self._take_back_attempt(message, delivery.number)  # it comes again, and no node was lost
            return result_of_failure(message, exc.failure, self._node, attempt)

    def _made(self, message: GenerateImage, attempt: int) -> GeneratedImage:
        served, picture = self._picture(message, attempt, self._start(message))
        try:
            stored = self._parts.finisher.finish(picture, message, seconds_left=_left(message))
        except UploadFailed as exc:
            logger.warning("Image %s was not stored: %s", message.image_id, exc)
            raise NotMade(exc.failure) from exc
        result = self._report_of(message, attempt, served, picture, stored)
        logger.info("Image %s made in %.2f s", message.image_id, served.took_s)
        return result

    # -- before ---------------------------------------------------------------------------------------

    def _refuse_what_is_of_no_use(self, message: GenerateImage, delivery: Delivery) -> None:
        if delivery.unwanted:
            raise NotMade(CANCELED)
        card = self._models.get(message.model)
        if card is None:
            raise NotMade(NOT_HERE)
        if message.revision and card.revision not in (None, message.revision):
            raise NotMade(OTHER_REVISION)
        if fault := _fault_in(message, card):
            raise NotMade(Failure(FailureCode.INVALID_REQUEST, fault, retryable=False))
        if _left(message) <= 0:
            raise NotMade(TOO_LATE)
        if expired(message.upload):
            raise NotMade(EXPIRED)

    def _refuse_poison(self, message: GenerateImage, attempt: int) -> None:
        """A prompt that kills its node ends here.

        Who comes again was perhaps only in hand when a neighbour killed the node. So it goes alone from then
        on, and only what is begun alone is counted against it.
        """
        if attempt < 2:
            return
        ask = self._parts.signals.times_alone
        if self._parts.fail_open(lambda: ask(message.image_id, message.run), 0) >= self._attempts_allowed - 1:
            raise NotMade(POISON)

    def _count_alone(self, message: GenerateImage, by: int) -> None:
        count = self._parts.signals.count_alone
        self._parts.fail_open(lambda: count(message.image_id, message.run, by), None)

    def _report_start(self, message: GenerateImage, attempt: int) -> None:
        started = ImageStarted(
            job_id=message.job_id,
            image_id=message.image_id,
            index=message.index,
            run=message.run,
            node=self._node,
            attempts=attempt,
            started_at=datetime.now(UTC),
        )
        self._parts.reports.started(started)

    def _start(self, message: GenerateImage) -> Start:
        try:
            return self._parts.references.load(message, seconds_left=_left(message))
        except ReferenceFailed as exc:
            logger.warning("Image %s has nothing to start from: %s", message.image_id, exc)
            raise NotMade(exc.failure) from exc

    # -- the engine -----------------------------------------------------------------------------------

    def _picture(self, message: GenerateImage, attempt: int, start: Start) -> tuple[Served, Picture]:
        for turn in range(1, ENGINE_TURNS + 1):
            try:
                served = self._served(message, attempt, turn, start)
            except EngineDied:
                raise  # its attempt counts: it may be what the engine died of
            except Draining:
                if turn == 1:
                    self._take_back_attempt(message, attempt)
                raise
            if isinstance(served.outcome, Picture):
                return served, served.outcome
            failure = served.outcome
            if turn == ENGINE_TURNS or not failure.retryable or failure.code not in AGAIN:
                break
            self._pause(turn, message)
        raise NotMade(failure)

    def _served(self, message: GenerateImage, attempt: int, turn: int, start: Start) -> Served:
        """One turn in the engine. What was begun before, and lost or failed, goes alone: it may be poison."""
        request = _request(message, f"{message.image_id}:{message.run}:{attempt}:{turn}", start)
        parts, alone = self._parts, attempt > 1 or turn > 1
        begun, due = threading.Event(), threading.Event()  # due: begun, or ended without that

        def on_begin() -> None:
            if attempt > 1 and turn == 1:
                self._count_alone(message, 1)
            begun.set()
            due.set()

        future = parts.batcher.submit(request, message.job_id, alone=alone, on_begin=on_begin)
        parts.watch.track(request.id, message.job_id, message.run, message.index, future)
        future.add_done_callback(lambda _: due.set())
        due.wait(timeout=max(_left(message), 0))
        if turn == 1 and begun.is_set():
            self._report_start(message, attempt)
        try:
            served = future.result(timeout=max(_left(message), 0))
        except TimeoutError as exc:
            parts.watch.drop(request.id)
            raise NotMade(TOO_LATE) from exc
        except CancelledError as exc:
            self._leave_or(CANCELED)
            raise NotMade(CANCELED) from exc
        if isinstance(served.outcome, Failure) and served.outcome.code == FailureCode.CANCELED:
            self._leave_or(served.outcome)
        return served

    def _leave_or(self, failure: Failure) -> None:
        """What was dropped while the node leaves was not canceled by its job: it is handed back."""
        if self._parts.batcher.closed.is_set():
            raise Draining
        raise NotMade(failure)

    def _take_back_attempt(self, message: GenerateImage, attempt: int) -> None:
        take_back = self._parts.signals.take_back_attempt
        self._parts.fail_open(lambda: take_back(message.image_id, message.run), None)
        if attempt > 1:
            self._count_alone(message, -1)  # at worst one that was not begun: it gets a try more

    def _pause(self, turn: int, message: GenerateImage) -> None:
        longest = FIRST_PAUSE_S * 2 ** (turn - 1)
        pause = min(longest * random.uniform(0.5, 1), max(_left(message), 0))  # noqa: S311 - jitter
        self._parts.batcher.closed.wait(pause)

    # -- after ----------------------------------------------------------------------------------------

    def _report_of(
        self, message: GenerateImage, attempt: int, served: Served, picture: Picture, stored: Stored
    ) -> GeneratedImage:
        begun = datetime.now(UTC) - timedelta(seconds=time.monotonic() - served.begun_at)
        spent = picture.spent
        return GeneratedImage(
            job_id=message.job_id,
            image_id=message.image_id,
            index=message.index,
            run=message.run,
            key=message.key,
            content_type=stored.content_type,
            bytes=stored.size,
            sha256=stored.sha256,
            width=picture.image.width,
            height=picture.image.height,
            seed=message.seed,
            model=message.model,
            node=self._node,
            attempts=attempt,
            timings=Timings(
                queued_ms=max(0, _ms(seconds_left(begun, message.queued_at))),
                generate_ms=_ms(served.took_s),
                load_ms=_ms(spent.load_s) if spent else None,
                encode_ms=_ms(spent.encode_s) if spent else None,
                denoise_ms=_ms(spent.denoise_s) if spent else None,
                decode_ms=_ms(spent.decode_s) if spent else None,
                store_ms=_ms(stored.took_s),
                upload_ms=_ms(stored.upload_s),
            ),
            made_with=dict(picture.made_with),
        )


def _read(kept: str | None) -> Result | None:
    try:
        return None if kept is None else _RESULT.validate_json(kept)
    except ValidationError:  # of another version
        return None


def result_of_failure(message: GenerateImage, failure: Failure, node: str, attempts: int) -> ImageFailure:
    """A failure, as it is reported."""
    return ImageFailure(
        job_id=message.job_id,
        image_id=message.image_id,
        index=message.index,
        run=message.run,
        code=failure.code,
        message=failure.message[:500],
        retryable=failure.retryable,
        node=node,
        attempts=attempts,
    )


def result_for_unreadable(
    raw: object,
    node: str,
    code: FailureCode = FailureCode.INVALID_REQUEST,
    text: str = "The node could not read the request for this image.",
) -> ImageFailure:
    """A failure for a message of which only parts, or nothing, can be read."""
    parts: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    return ImageFailure(
        job_id=_uuid_or_nobody(parts.get("job_id")),
        image_id=_uuid_or_nobody(parts.get("image_id")),
        index=_int_or(0, parts.get("index")),
        run=_int_or(1, parts.get("run")),
        code=code,
        message=text,
        retryable=code is FailureCode.INTERNAL,
        node=node,
        attempts=0,
    )


def _uuid_or_nobody(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        return _NOBODY


def _int_or(default: int, value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else default


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _left(message: GenerateImage) -> float:
    return seconds_left(message.deadline, datetime.now(UTC))


def _request(message: GenerateImage, request_id: str, start: Start) -> ImageRequest:
    return ImageRequest(
        id=request_id,
        model=message.model,
        prompt=message.prompt,
        width=message.width,
        height=message.height,
        seed=message.seed,
        negative_prompt=message.negative_prompt,
        title=message.title,
        steps=message.steps,
        guidance=message.guidance,
        scheduler=message.scheduler,
        loras=message.loras,
        task=message.task,
        reference=start.reference,
        mask=start.mask,
        strength=message.strength,
        reproducible=message.reproducible,
        revision=message.revision,
        preview=message.preview,
    )


def _fault_in(message: GenerateImage, card: ModelCard) -> str | None:
    """What the model can't do, in words for the client."""
    sides = (message.width, message.height)
    if not all(card.min_size <= side <= card.max_size for side in sides):
        return f"Each side must have from {card.min_size} to {card.max_size} pixels."
    if any(side % card.size_multiple for side in sides):
        return f"Each side must be a multiple of {card.size_multiple} pixels."
    if message.steps is not None and not 1 <= message.steps <= card.max_steps:
        return f"The number of steps must be from 1 to {card.max_steps}."
    if card.max_pixels is not None and message.width * message.height > card.max_pixels:
        return f"Width x height must be at most {card.max_pixels} pixels."
    return _fault_in_options(message, card)


def _fault_in_options(message: GenerateImage, card: ModelCard) -> str | None:
    if message.task not in card.tasks:
        return f"The model can't do {message.task}."
    needs = (message.task != "text-to-image", message.task == "inpainting")
    if needs != (message.reference is not None, message.mask is not None):
        return f"What is given to start from is not what {message.task} needs."
    if message.scheduler is not None and message.scheduler not in card.schedulers:
        return f"The model knows no scheduler {message.scheduler!r}."
    unknown = {lora.name for lora in message.loras} - {lora.name for lora in card.loras}
    if unknown:
        return f"The model knows no LoRA {', '.join(sorted(unknown))}."
    if len(message.loras) > card.max_loras:
        return f"At most {card.max_loras} LoRAs can be used at once."
    if message.reproducible and not card.can_reproduce:
        return "The model can't make images bit for bit again."
    return None

"""Pipelines that are made of steps: each step is done once, whatever dies, comes twice or is away."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery.result import AsyncResult
from pydantic import BaseModel

from backend import rescue, resources, submit, views
from backend.errors import Conflict, LLMUnauthorized, LLMUnavailable, StepFailed, StorageUnavailable
from backend.jobs import store
from backend.jobs.faults import Fault
from backend.jobs.models import Status
from backend.pipelines import PIPELINES
from backend.pipelines.base import RequestModel
from backend.pipelines.steps import Context, EventPipeline, EventRequest, Step
from backend.resources import Resources
from backend.steps import run_step
from backend.tasks import holding
from backend.tasks.base import fault_of
from backend.views import now
from contract.queues import CPU_QUEUES, DEFAULT_QUEUE, LLM_QUEUE, MEDIA_QUEUE
from tests.backend.jobs.test_store import log_of
from tests.backend.workplace import Workplace, working
from tests.services import RedisServer

Output = dict[str, Any] | BaseModel


class Note(RequestModel):
    text: str


class Counted(BaseModel):
    words: int


class Trial:
    """A pipeline of three steps, and what a test makes of each of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.instead: dict[str, Callable[[], object]] = {}
        self.pipeline = EventPipeline(
            name="trial",
            event_type="note.taken",
            summary="s",
            description="d",
            data_schema=Note,
            steps=(
                Step("count", self._count, LLM_QUEUE),
                Step("double", self._double, MEDIA_QUEUE, longest_s=60),
                Step("tell", self._tell),
            ),
        )

    def _count(self, parts: Resources, context: Context[Note]) -> Output:
        self._called("count")
        return Counted(words=len(context.data.text.split()))

    def _double(self, parts: Resources, context: Context[Note]) -> Output:
        self._called("double")
        return {"words": context.outputs["count"]["words"] * 2}

    def _tell(self, parts: Resources, context: Context[Note]) -> Output:
        self._called("tell")
        return {"text": context.data.text, "words": context.outputs["double"]["words"]}

    def fails_until(self, step: str, call: int, error: type[Exception]) -> None:
        """It does so each time before the one that is told, from 1."""

        def fail() -> None:
            if self.calls.count(step) < call:
                raise error

        self.instead[step] = fail

    def _called(self, step: str) -> None:
        self.calls.append(step)
        if step in self.instead:
            self.instead[step]()


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    trial = Trial()
    monkeypatch.setitem(PIPELINES, "trial", trial.pipeline)
    return trial


@pytest.fixture
def place(
    database: object, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    yield from working(Workplace(database_url, redis_url, tmp_path), monkeypatch)


def accept(place: Workplace, trial: Trial, text: str = "a b c") -> UUID:
    request = EventRequest(type="note.taken", data={"text": text})
    done = submit.submit(
        place.parts, trial.pipeline, request, owner="local", idempotency_key=None, answer=lambda job: {}
    )
    return done.job_id


def messages(place: Workplace) -> dict[str, list[dict[str, Any]]]:
    """What waits, by queue. It is taken out."""
    found = {queue: place.waiting(queue) for queue in CPU_QUEUES}
    return {queue: waiting for queue, waiting in found.items() if waiting}


def next_message(place: Workplace) -> dict[str, Any]:
    ((message,),) = messages(place).values()
    return message


def work(place: Workplace) -> None:
    """As a worker does, until nothing waits."""
    while waiting := messages(place):
        for message in [one for queue in waiting.values() for one in queue]:
            run_step.apply(kwargs=message)


def as_if_killed() -> None:
    raise KeyboardInterrupt  # nothing of ours catches it: as if the process had died there


def refuse() -> None:
    raise StepFailed("The note is about nothing.")


def seen_by_celery(place: Workplace, job_id: UUID) -> AsyncResult[Any]:
    return AsyncResult(str(job_id), app=place.parts.celery)


def test_each_step_in_its_order_in_its_queue_with_what_those_before_it_made(
    place: Workplace, trial: Trial
) -> None:
    # Given an event
    job_id = accept(place, trial)
    assert place.job(job_id).task_context == {"count": None, "double": None, "tell": None}
    # When workers take one message after the other
    for step, queue in (("count", LLM_QUEUE), ("double", MEDIA_QUEUE), ("tell", DEFAULT_QUEUE)):
        waiting = messages(place)
        assert list(waiting) == [queue]
        ((message,),) = waiting.values()
        assert message["step"] == step
        run_step.apply(kwargs=message)
    # Then all is stored, told and ended
    job = place.job(job_id)
    assert (job.status, job.output) == (Status.COMPLETED, {"text": "a b c", "words": 6})
    assert job.task_context is not None
    made = {name: done["output"] for name, done in job.task_context.items()}
    assert made == {"count": {"words": 3}, "double": {"words": 6}, "tell": {"text": "a b c", "words": 6}}
    assert log_of(place.parts.db, job_id) == [
        "job.created", "job.started", *["job.step_completed"] * 3, "job.completed",
    ]  # fmt: skip
    assert messages(place) == {}


def test_celery_users_see_how_far_it_is_and_what_came_of_it(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    seen = []
    trial.instead["double"] = lambda: seen.append(
        (seen_by_celery(place, job_id).state, seen_by_celery(place, job_id).info)
    )
    work(place)
    assert seen == [("PROGRESS", {"step": "double", "completed": 1, "total": 3, "done": ["count"]})]
    result = seen_by_celery(place, job_id)
    assert result.state == "SUCCESS"
    assert result.get(timeout=60)["output"] == {"text": "a b c", "words": 6}


def test_a_message_that_comes_twice_does_nothing_twice(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    first = next_message(place)
    run_step.apply(kwargs=first)
    second = next_message(place)
    # When the first comes again, before and after all is done
    run_step.apply(kwargs=first)
    again = next_message(place)
    run_step.apply(kwargs=second)
    run_step.apply(kwargs=again)
    work(place)
    run_step.apply(kwargs=first)
    # Then nothing was done again
    assert trial.calls == ["count", "double", "tell"]
    assert messages(place) == {}
    assert log_of(place.parts.db, job_id).count("job.completed") == 1


def test_a_step_is_in_one_hand_at_a_time(place: Workplace, trial: Trial) -> None:
    # Given a job that was sent twice
    job_id = accept(place, trial)
    one = next_message(place)
    submit.dispatch(place.parts, job_id)
    other = next_message(place)
    # When the second message comes while the first is worked on
    trial.instead["count"] = lambda: run_step.apply(kwargs=other)
    run_step.apply(kwargs=one)
    # Then it is dropped
    assert trial.calls == ["count"]
    assert len(messages(place)) == 1


def test_of_two_that_did_the_same_step_the_first_stands(place: Workplace, trial: Trial) -> None:
    # Given a worker that takes much longer than it may, so that another one does the step meanwhile
    job_id = accept(place, trial)
    one = next_message(place)
    submit.dispatch(place.parts, job_id)
    other = next_message(place)

    def slow() -> None:
        trial.instead.clear()
        place.age(job_id, 3600)
        run_step.apply(kwargs=other)

    trial.instead["count"] = slow
    run_step.apply(kwargs=one)
    # Then what it brings is dropped, and the next step is sent once
    assert trial.calls == ["count", "count"]
    assert [len(queue) for queue in messages(place).values()] == [1]
    assert log_of(place.parts.db, job_id).count("job.step_completed") == 1


def test_a_worker_that_is_killed_costs_the_step_that_it_had_in_hand(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    run_step.apply(kwargs=next_message(place))
    in_hand = next_message(place)
    trial.instead["double"] = as_if_killed
    with pytest.raises(KeyboardInterrupt):
        run_step(**in_hand)
    trial.instead.clear()
    # When its message is delivered again
    run_step.apply(kwargs=in_hand)
    work(place)
    assert place.job(job_id).status is Status.COMPLETED
    assert trial.calls == ["count", "double", "double", "tell"]


def test_a_step_that_kills_its_workers_is_left_after_a_few(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    run_step.apply(kwargs=next_message(place))
    in_hand = next_message(place)
    trial.instead["double"] = as_if_killed
    # When its message is delivered again, and once is lost with its machine
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_step(**in_hand)
    assert place.job(job_id).status is Status.IN_PROGRESS
    place.age(job_id, 31)
    rescue.rescue(place.parts)
    in_hand = next_message(place)
    with pytest.raises(KeyboardInterrupt):
        run_step(**in_hand)
    trial.instead.clear()
    run_step.apply(kwargs=in_hand)
    # Then its job has failed after the third, and says so
    job = place.job(job_id)
    assert (job.status, job.error_code, job.error_retryable) == (Status.FAILED, "worker_lost", True)
    assert trial.calls == ["count", "double", "double", "double"]
    assert views.render(place.parts, job).progress.completed == 1
    # And a retry has as many tries again
    submit.retry(place.parts, job_id, "local")
    in_hand = next_message(place)
    trial.instead["double"] = as_if_killed
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_step(**in_hand)
    trial.instead.clear()
    run_step.apply(kwargs=in_hand)
    work(place)
    assert place.job(job_id).status is Status.COMPLETED


def test_a_step_that_waits_for_what_is_away_kills_nobody(place: Workplace, trial: Trial) -> None:
    # Given a step that meets what goes away by itself, more often than workers may die over it
    job_id = accept(place, trial)
    trial.fails_until("count", 6, StorageUnavailable)
    work(place)
    # Then it is done at last
    assert place.job(job_id).status is Status.COMPLETED


def test_a_step_that_waits_for_what_is_away_is_not_lost_meanwhile(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)

    def away() -> None:
        raise StorageUnavailable

    trial.instead["count"] = away
    with pytest.raises(StorageUnavailable):
        run_step(**next_message(place))  # called like this, Celery does not try it again
    # Then it stays where it is for longer than its next try can take
    place.age(job_id, 60)
    rescue.rescue(place.parts)
    assert messages(place) == {}


def test_what_was_lost_with_its_message_is_sent_again_from_the_step_that_is_next(
    place: Workplace, trial: Trial
) -> None:
    # Given a worker that died with a message that nobody has any more
    job_id = accept(place, trial)
    run_step.apply(kwargs=next_message(place))
    trial.instead["double"] = as_if_killed
    with pytest.raises(KeyboardInterrupt):
        run_step(**next_message(place))
    trial.instead.clear()
    # When it gave no sign of life for long enough, and nothing waits in its queue
    place.age(job_id, 20)
    rescue.rescue(place.parts)
    assert messages(place) == {}
    place.age(job_id, 11)
    place.fill(LLM_QUEUE)
    rescue.rescue(place.parts)
    waiting = messages(place)
    assert [message["step"] for message in waiting[MEDIA_QUEUE]] == ["double"]
    run_step.apply(kwargs=waiting[MEDIA_QUEUE][0])
    work(place)
    assert place.job(job_id).status is Status.COMPLETED
    assert trial.calls.count("count") == 1


def test_a_step_that_somebody_does_is_not_sent_again_however_long_it_takes(
    place: Workplace, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "RENEWED_EVERY_S", 0.05)
    job_id = accept(place, trial)

    def take_an_hour() -> None:
        place.age(job_id, 3600)
        wait_until(lambda: (place.job(job_id).claimed_until or now()) > now())
        rescue.rescue(place.parts)
        assert messages(place) == {}

    trial.instead["count"] = take_an_hour
    run_step.apply(kwargs=next_message(place))
    trial.instead.clear()
    work(place)
    assert place.job(job_id).status is Status.COMPLETED


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_step_that_waits_in_its_queue_is_not_sent_again(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    run_step.apply(kwargs=next_message(place))
    messages(place)
    place.fill(MEDIA_QUEUE)
    place.age(job_id, 250)
    rescue.rescue(place.parts)
    assert [one for one in messages(place)[MEDIA_QUEUE] if one] == []


def test_what_failed_is_run_again_and_nothing_else(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    trial.instead["double"] = refuse
    work(place)
    job = place.job(job_id)
    assert (job.status, job.error_code, job.error_retryable) == (Status.FAILED, "step_failed", False)
    assert job.error_message == "The note is about nothing."
    assert seen_by_celery(place, job_id).state == "FAILURE"
    # When its client has it run again
    trial.instead.clear()
    submit.retry(place.parts, job_id, "local")
    work(place)
    # Then what was made before is used
    assert place.job(job_id).status is Status.COMPLETED
    assert trial.calls == ["count", "double", "double", "tell"]
    assert seen_by_celery(place, job_id).state == "SUCCESS"
    with pytest.raises(Conflict):
        submit.retry(place.parts, job_id, "local")


def test_news_from_an_earlier_run_change_nothing(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    old = next_message(place)
    with place.parts.db.session_scope() as session:
        store.fail(session, job_id, Fault("internal", "m", retryable=True), now())
    submit.retry(place.parts, job_id, "local")
    new = next_message(place)
    run_step.apply(kwargs=old)
    assert trial.calls == []
    run_step.apply(kwargs=new)
    assert trial.calls == ["count"]


def test_what_an_earlier_run_failed_of_is_no_matter_of_this_one(place: Workplace, trial: Trial) -> None:
    # Given a step that fails when its job has failed and is run again meanwhile
    job_id = accept(place, trial)

    def fail_late() -> None:
        with place.parts.db.session_scope() as session:
            store.fail(session, job_id, Fault("deadline_exceeded", "m", retryable=True), now())
        submit.retry(place.parts, job_id, "local")
        raise StepFailed

    trial.instead["count"] = fail_late
    run_step.apply(kwargs=next_message(place))
    assert place.job(job_id).status is Status.PENDING
    trial.instead.clear()
    work(place)
    assert place.job(job_id).status is Status.COMPLETED


def test_a_job_that_is_canceled_between_its_steps_and_amid_one(place: Workplace, trial: Trial) -> None:
    between, amid = accept(place, trial), accept(place, trial)
    run_step.apply(kwargs=next(m for m in place.waiting(LLM_QUEUE) if m["job_id"] == str(between)))
    submit.cancel(place.parts, between, "local")
    work(place)
    assert trial.calls == ["count"]
    # And one whose step is done for nothing
    submit.dispatch(place.parts, amid)
    trial.instead["count"] = lambda: submit.cancel(place.parts, amid, "local")
    work(place)
    assert trial.calls == ["count", "count"]
    assert [place.job(one).status for one in (between, amid)] == [Status.CANCELED] * 2
    assert place.job(amid).task_context == {"count": None, "double": None, "tell": None}
    assert str(seen_by_celery(place, amid).state) == "REVOKED"


def test_a_language_model_that_is_away_is_asked_again(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    trial.fails_until("count", 3, LLMUnavailable)
    work(place)
    assert place.job(job_id).status is Status.COMPLETED
    assert trial.calls == ["count", "count", "count", "double", "tell"]


@pytest.mark.parametrize(
    ("error", "code", "calls"),
    [
        (LLMUnavailable(), "llm_unavailable", 3),
        (LLMUnauthorized(), "llm_unauthorized", 1),
        (ConnectionResetError(), "step_failed", 1),
        (ZeroDivisionError(), "internal", 1),
    ],
)
def test_what_does_not_go_away_ends_the_job_with_its_code(
    place: Workplace, trial: Trial, error: Exception, code: str, calls: int
) -> None:
    job_id = accept(place, trial)

    def fail() -> None:
        raise error

    trial.instead["count"] = fail
    work(place)
    job = place.job(job_id)
    assert (job.status, job.error_code) == (Status.FAILED, code)
    assert trial.calls == ["count"] * calls


def test_whatever_a_model_writes_can_be_stored(place: Workplace, trial: Trial) -> None:
    text = "nul \x00, half \ud800, \u2028 and 🦊"
    step = Step[Note]("say", lambda parts, context: {"\x00said": [{"text\x00": text}]})
    short = EventPipeline("trial", "note.taken", "s", "d", Note, (step,))
    PIPELINES["trial"] = short
    request = EventRequest(type="note.taken", data={"text": "a"})
    done = submit.submit(
        place.parts, short, request, owner="local", idempotency_key=None, answer=lambda job: {}
    )
    work(place)
    stored = {"\ufffdsaid": [{"text\ufffd": "nul \ufffd, half ?, \u2028 and 🦊"}]}
    assert place.job(done.job_id).output == stored


def test_whatever_a_step_says_of_its_failure_is_told(place: Workplace, trial: Trial) -> None:
    def fail() -> None:
        raise StepFailed("It was sent by \x00Ann.")

    trial.instead["count"] = fail
    job_id = accept(place, trial)
    work(place)
    job = place.job(job_id)
    assert (job.error_code, job.error_message) == ("step_failed", "It was sent by \ufffdAnn.")
    assert fault_of(StepFailed("half \ud800")).message == "half ?"  # which no log of a test run can hold


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1) if levels else 1}


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"a": "x" * 1_100_000}, "step_failed"),
        ({"a": float("nan")}, "internal"),
        ({"a": {1, 2}}, "internal"),
        (nested(600), "internal"),
        ([1, 2], "internal"),
        (None, "internal"),
    ],
)
def test_what_can_not_be_kept_ends_the_job_and_the_log_says_why(
    place: Workplace, trial: Trial, made: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    PIPELINES["trial"] = short = EventPipeline(
        "trial", "note.taken", "s", "d", Note, (Step[Note]("say", lambda parts, context: made),)
    )
    job_id = accept(place, trial)
    work(place)
    job = place.job(job_id)
    assert (short.steps[0].name, job.status, job.error_code) == ("say", Status.FAILED, code)
    kind = type(made).__name__
    assert code == "step_failed" or f"the step say has returned a {kind}, and not an object of" in caplog.text


def test_without_a_broker_the_next_step_is_sent_later(
    database: object, database_url: str, own_redis: RedisServer, tmp_path: Path,
    trial: Trial, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Given a broker that goes away while a step is done
    place = Workplace(database_url, own_redis.url(), tmp_path)
    monkeypatch.setattr(resources, "current", lambda: place.parts)
    job_id = accept(place, trial)
    trial.instead["count"] = own_redis.service.stop
    run_step.apply(kwargs=next_message(place))
    # Then what it has made stands
    job = place.job(job_id)
    assert job.status is Status.IN_PROGRESS
    assert job.task_context is not None
    assert job.task_context["count"]["output"] == {"words": 3}
    # And when the broker is back, the job goes on
    own_redis.service.start()
    place.look_again()
    place.age(job_id, 31)
    rescue.rescue(place.parts)
    trial.instead.clear()
    work(place)
    assert place.job(job_id).status is Status.COMPLETED
    assert trial.calls == ["count", "double", "tell"]
    place.close()


def test_a_pipeline_that_has_lost_a_step_since_still_ends(place: Workplace, trial: Trial) -> None:
    job_id = accept(place, trial)
    for _ in range(2):
        run_step.apply(kwargs=next_message(place))
    # When a deployment has taken the last step out
    shorter = EventPipeline("trial", "note.taken", "s", "d", Note, trial.pipeline.steps[:2])
    PIPELINES["trial"] = shorter
    work(place)
    job = place.job(job_id)
    assert (job.status, job.output) == (Status.COMPLETED, {"words": 6})

"""From one message to N prompts, and from N prompts to N clones of `generate_image`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore

from backend import resources
from backend.celery_app import app
from backend.errors import LLMError
from backend.jobs import queries, store
from backend.jobs.models import Job
from backend.jobs.store import Plan
from backend.llm.base import PromptRequest
from backend.resources import Resources
from backend.tasks import gpu, lifecycle, notify, reports
from backend.tasks.base import PATIENCE, JobTask, ask_again
from backend.views import now
from contract.queues import GENERATE_PROMPTS, MAP_PROMPTS, WRITE_PROMPTS

SEEDS = 2**32
LONGEST_S = 690


@app.task(
    name=GENERATE_PROMPTS,
    bind=True,
    base=JobTask,
    soft_time_limit=LONGEST_S - 30,
    time_limit=LONGEST_S,
    **PATIENCE,
)
def generate_prompts(self: JobTask, *, job_id: str, run: int) -> None:
    """Writes the job's prompts and its rows, and hands them to the nodes at once, as `map_prompts` does;
    or leaves them to their client's review.

    A second delivery finds the prompts there and leaves them.
    """
    parts = resources.current()
    job = _claimed(parts, UUID(job_id), run, str(self.request.id))
    if job is None:
        raise Ignore
    notify.kick(parts, job)
    if job.images:
        _hand_over(parts, job)
        return
    prompts = _write(self, parts, job)
    with parts.db.session_scope() as session:
        locked = store.begin(session, job.id, now(), run)
        if locked is None:
            raise Ignore
        store.plan(session, locked, plans_of(locked, prompts), now())
        if locked.input.get("review"):
            store.hold(session, locked, now())
        images = gpu.choose(parts, session, locked)
    notify.kick(parts, locked)
    gpu.send(parts, locked, images)


def _claimed(parts: Resources, job_id: UUID, run: int, task_id: str) -> Job | None:
    """The job, if its prompts are this task's to write: two that write at once would cost twice."""
    until = now() + timedelta(seconds=parts.settings.llm_timeout_s + 30)
    with parts.db.session_scope() as session:
        job = store.begin(session, job_id, now(), run)
        return job if job and store.claim(job, task_id, until, now()) else None


def _write(task: JobTask, parts: Resources, job: Job) -> list[str]:
    request = PromptRequest(
        message=job.input["message"],
        count=job.input["count"],
        seed=job.input["seed"],
        width=job.input["width"],
        height=job.input["height"],
    )
    try:
        return parts.llm.write_prompts(request)
    except LLMError as exc:
        raise ask_again(task, exc, parts.settings.llm_attempts) from exc


def plans_of(job: Job, prompts: Sequence[str]) -> list[Plan]:
    """Seeds follow from the job's own, so that the same request gives the same images."""
    first = job.input["seed"]
    base = job.id.int if first is None else first
    return [Plan(prompt, job.input["model"], (base + index) % SEEDS) for index, prompt in enumerate(prompts)]


@app.task(
    name=WRITE_PROMPTS,
    bind=True,
    base=JobTask,
    ignore_result=False,
    soft_time_limit=LONGEST_S - 30,
    time_limit=LONGEST_S,
    **PATIENCE,
)
def write_prompts(self: JobTask, *, job_id: str, run: int) -> dict[str, Any]:
    """Writes the job's prompts, and ends it. Its value is what `AsyncResult(task_id).get()` gives."""
    parts = resources.current()
    job = _claimed(parts, UUID(job_id), run, str(self.request.id))
    if job is None:
        return _written(parts, UUID(job_id))
    notify.kick(parts, job)
    output = {"prompts": _write(self, parts, job)}
    with parts.db.session_scope() as session:
        locked = store.begin(session, job.id, now(), run)
        if locked:
            store.complete(session, locked, output, now(), parts.settings.job_ttl)
    if locked:
        notify.kick(parts, locked)
        lifecycle.end_signals(parts, locked)
    return _written(parts, job.id)


def _written(parts: Resources, job_id: UUID) -> dict[str, Any]:
    """What Celery users see of the end: the truth, whoever has brought it about."""
    with parts.db.read_scope() as session:
        job = queries.get(session, job_id)
    if job is None or job.output is None:
        raise Ignore
    return {"task_id": str(job.id), "status": job.status.value, **job.output}


@app.task(name=MAP_PROMPTS, base=JobTask, soft_time_limit=120, time_limit=150, **PATIENCE)
def map_prompts(*, job_id: str, run: int) -> None:
    """One clone of `generate_image` for each prompt. Whoever reports the last of them sends `save_images`."""
    parts = resources.current()
    job = lifecycle.begin(parts, UUID(job_id), run)
    if job is None:
        raise Ignore
    _hand_over(parts, job)


def _hand_over(parts: Resources, job: Job) -> None:
    if store.is_made(job):
        reports.send_to_save(job)
    else:
        gpu.release(parts, job.id)

"""From one message to N prompts, and from N prompts to N clones of `generate_image`."""

import logging
import random
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore

from backend import resources
from backend.celery_app import app
from backend.errors import LLMError
from backend.jobs import fairness, store
from backend.jobs.models import Job
from backend.jobs.store import Plan
from backend.llm.base import PromptRequest
from backend.resources import Resources
from backend.tasks import lifecycle, media, notify
from backend.tasks.base import PATIENCE, JobTask
from backend.tasks.gpu import fan_out
from backend.views import now
from contract.queues import GENERATE_PROMPTS, MAP_PROMPTS

log = logging.getLogger(__name__)

SEEDS = 2**32


@app.task(name=GENERATE_PROMPTS, bind=True, base=JobTask, soft_time_limit=660, time_limit=690, **PATIENCE)
def generate_prompts(self: JobTask, *, job_id: str, run: int) -> None:
    """Writes the job's prompts and its rows; a second delivery finds them there and leaves them."""
    parts = resources.current()
    job = lifecycle.begin(parts, UUID(job_id), run)
    if job is None:
        raise Ignore
    notify.kick(parts, job.id)
    with parts.db.read_scope() as session:
        if store.planned(session, job):
            return
    prompts = _write(self, parts, job)
    with parts.db.session_scope() as session:
        if locked := store.lock(session, job.id):
            store.plan(session, locked, _plans(locked, prompts), now())


def _write(task: JobTask, parts: Resources, job: Job) -> list[str]:
    request = PromptRequest(
        message=job.input["message"],
        count=job.total,
        seed=job.input["seed"],
        width=job.input["width"],
        height=job.input["height"],
    )
    try:
        return parts.llm.write_prompts(request)
    except LLMError as exc:
        tries = task.request.retries + 1
        if not exc.retryable or tries >= parts.settings.llm_attempts:
            raise
        wait = max(1.0, exc.retry_after_s or 2**tries * (0.5 + random.random()))  # noqa: S311
        log.warning("prompts of job %s: %s, attempt %s; again in %.0f s", job.id, exc.code, tries, wait)
        raise task.retry(exc=exc, countdown=wait, max_retries=parts.settings.llm_attempts) from exc


def _plans(job: Job, prompts: list[str]) -> list[Plan]:
    """Seeds follow from the job's own, so that the same request gives the same images."""
    first = job.input["seed"]
    base = job.id.int if first is None else first
    return [Plan(prompt, job.input["model"], (base + index) % SEEDS) for index, prompt in enumerate(prompts)]


@app.task(
    name=MAP_PROMPTS,
    bind=True,
    base=JobTask,
    ignore_result=False,
    soft_time_limit=120,
    time_limit=150,
    **PATIENCE,
)
def map_prompts(self: JobTask, *, job_id: str, run: int) -> Any:  # noqa: ANN401 - whatever replaces it returns
    """Replaces itself with a chord: one clone of `generate_image` per prompt, then `save_images`."""
    parts = resources.current()
    job = lifecycle.begin(parts, UUID(job_id), run)
    if job is None:
        raise Ignore
    with parts.db.session_scope() as session:
        images = store.to_make(session, job)
        fairness.assign_bands(session, job, images, now())
    save = media.save_images.s(job_id=job_id, run=run)
    if not images:
        return self.replace(save.clone(args=([],)))
    return self.replace(fan_out(parts, job, images, save))

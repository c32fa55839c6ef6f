"""The fan-in: nodes report how their images went, and whoever takes the last report has the batch saved."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from backend import resources
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import BrokerUnavailable
from backend.jobs import store
from backend.jobs.models import Job
from backend.jobs.store import Report
from backend.resources import Resources
from backend.tasks import gpu, lifecycle, notify
from backend.views import now
from contract.messages import FailureCode, ImageFailure, ImageReport
from contract.queues import SAVE_IMAGES, TAKE_REPORTS

log = logging.getLogger(__name__)

_REPORT: TypeAdapter[Report] = TypeAdapter(ImageReport)


@app.task(name=TAKE_REPORTS, soft_time_limit=120, time_limit=150, **lifecycle.PATIENCE)
def take_reports(messages: Sequence[object]) -> None:
    """Reports of one node, of any jobs. Each may come twice, and late."""
    parts = resources.current()
    by_job: dict[UUID, list[Report]] = defaultdict(list)
    for message in messages:
        if report := _parse(message):
            by_job[report.job_id].append(report)
    with parts.db.session_scope() as session:
        jobs = store.lock_all(session, by_job)
        for job in jobs:
            store.take(session, job, by_job[job.id], now())
    for job in jobs:
        _go_on(parts, job)


def _parse(message: object) -> Report | None:
    try:
        report = _REPORT.validate_python(message)
    except ValidationError:
        log.exception("a node's report is not one")  # its image counts as lost, others are taken
        return None
    # What was canceled has ended, or comes again: nothing is to be written down
    return None if isinstance(report, ImageFailure) and report.code is FailureCode.CANCELED else report


def _go_on(parts: Resources, job: Job) -> None:
    notify.kick(parts, job)
    if store.is_made(job):
        send_to_save(job)
    if parts.settings.max_running_images_per_owner:
        gpu.release_next(parts, job.owner)
    elif store.unsent(job):
        gpu.release(parts, job.id)


def send_to_save(job: Job) -> None:
    """All images are made, or given up: what is left is thumbnails and the end. May be sent twice.

    Raises `BrokerUnavailable`.
    """
    given = {"job_id": str(job.id), "run": job.run}
    try:
        app.send_task(SAVE_IMAGES, kwargs=given, task_id=str(job.id), ignore_result=False)
    except BROKER_ERRORS as exc:
        raise BrokerUnavailable from exc

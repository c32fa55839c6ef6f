"""From rows to answers: views of jobs with their progress, and why they wait."""

import math
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from backend import views
from backend.errors import NotFound
from backend.jobs import fairness, queries, store
from backend.jobs.models import ENDED, Job, Status
from backend.jobs.queries import Version
from backend.resources import Resources
from backend.views import WaitingFor
from contract.messages import NodeAnnouncement


def find(session: Session, job_id: UUID, owner: str) -> Job:
    """The owner's job. Raises `NotFound`, also for somebody else's."""
    job = queries.get(session, job_id, owner)
    if job is None:
        raise NotFound("There is no such job.")
    return job


def read(resources: Resources, job_id: UUID, owner: str) -> views.Job:
    """The owner's job as it is now. Raises `NotFound`."""
    job, _ = read_with_version(resources, job_id, owner)
    return job


def read_with_version(resources: Resources, job_id: UUID, owner: str) -> tuple[views.Job, Version]:
    """The same, and which state of the job it shows."""
    with resources.db.read_scope() as session:
        job = find(session, job_id, owner)
        waiting_for = why_waiting(resources, session, job)
    fractions = views.fractions_of(resources, [job]).get(job.id)
    view = views.render(resources, job, fractions=fractions, waiting_for=waiting_for)
    return view, queries.version_of(job)


def present_all(
    resources: Resources, jobs: Sequence[Job], waits: Sequence[WaitingFor | None]
) -> list[views.Job]:
    """Views of several jobs, and why each waits. Outside of the session: the storage may have to be asked."""
    fractions = views.fractions_of(resources, jobs)
    return [
        views.render(resources, job, fractions=fractions.get(job.id), waiting_for=waiting_for)
        for job, waiting_for in zip(jobs, waits, strict=True)
    ]


def why_waiting(resources: Resources, session: Session, job: Job) -> WaitingFor | None:
    """Why nobody is at work on the job, if nobody is."""
    if job.status in ENDED or any(_in_hand(image.status, image.generated_at) for image in job.images):
        return None
    if job.held_at:
        return why_held(job)
    snapshot = resources.nodes.snapshot()
    if not snapshot.reachable or (job.status is Status.PENDING and job.dispatched_at is None):
        return WaitingFor(
            reason="broker", message="The broker is away; the job is kept and sent when it is back."
        )
    model = job.input.get("model")
    if model is None or (job.images and all(image.generated_at for image in job.images)):
        return None
    serving = snapshot.serving(model)
    if not serving:
        return WaitingFor(reason="no_worker_for_model", message=f"No live worker serves the model {model}.")
    if not job.images:
        return None  # its prompts are being written
    limit = resources.settings.max_running_images_per_owner
    if limit and all(image.queued_at is None for image in store.unmade(job)):
        return WaitingFor(
            reason="quota",
            message=f"At most {limit} of your images are worked on at once; others come first.",
        )
    ahead = fairness.images_ahead(session, job, model)
    if not any(model in node.loaded for node in serving):
        return _cold_load(model, serving, ahead)
    if ahead:
        return WaitingFor(
            reason="ahead_of_you",
            message=f"{ahead} images are ahead.",
            position=ahead,
            estimate_s=_estimate(session, model, ahead, len(serving)),
        )
    return None


def why_held(job: Job) -> WaitingFor | None:
    """What the job wants of its client, if anything."""
    if not job.held_at:
        return None
    if job.takes_files:
        return WaitingFor(reason="upload", message="Its files are to be uploaded: then continue it.")
    return WaitingFor(reason="review", message="Its prompts wait for your word: continue it.")


def _estimate(session: Session, model: str, ahead: int, nodes: int) -> int | None:
    """In whole seconds: each other answer is one more for those who poll."""
    pace = fairness.seconds_per_image(session, model)
    return None if pace is None else math.ceil(ahead * pace / nodes)


def _cold_load(model: str, serving: Sequence[NodeAnnouncement], ahead: int) -> WaitingFor:
    """Says what changes seldom: each other answer is one more for those who poll."""
    loading = [node.node for node in serving if model in node.loading]
    if loading:
        message = f"The model {model} is being loaded by {' and '.join(loading)}."
    else:
        message = f"No live worker has the model {model} loaded; it is loaded when its turn comes."
    return WaitingFor(reason="cold_load", message=message, position=ahead or None)


def _in_hand(status: Status, generated_at: datetime | None) -> bool:
    return status is Status.IN_PROGRESS and generated_at is None

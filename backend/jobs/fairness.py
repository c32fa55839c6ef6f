"""Whose image comes next.

Each image waits in a band, and the lower band goes first. Which one follows from its rank: how many images
for its model its owner has open before it. 4 go into band 0, 4 into band 1, 8 into band 2, 16, 32 ... So an
image waits for about as many images of any other owner as it waits for of its own, and never for all of
somebody's thousands. Owners may weigh more, and have so many times as much in each band. The client's
`priority` says what comes before what of its own, and no more.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.jobs.models import OPEN, ApiKey, ImageGeneration, Job, Status
from contract.queues import BANDS

Priority = Literal["low", "normal", "high"]

FIRST_BAND = 4  # images; also how many of an owner's are moved forward at once
PACE_FROM = 20  # newest images that tell how long one takes

_ORDER: dict[str | None, int] = {"high": 0, "normal": 1, None: 1, "low": 2}
_UNMADE = sa.and_(ImageGeneration.status.in_(OPEN), ImageGeneration.generated_at.is_(None))

# Built once: that takes longer than to ask them.
_PLACE_OF_IT = sa.case(
    {name: place for name, place in _ORDER.items() if name is not None},
    value=Job.input["priority"].as_string(),
    else_=_ORDER[None],
)
_COME_BEFORE = (  # open jobs of the same owner for the same model
    Job.owner == sa.bindparam("owner"),
    Job.status.in_(OPEN),
    Job.deleted_at.is_(None),
    Job.held_at.is_(None),
    Job.input["model"].as_string().is_not_distinct_from(sa.bindparam("model")),
    sa.or_(
        sa.bindparam("place") > _PLACE_OF_IT,
        sa.and_(sa.bindparam("place") == _PLACE_OF_IT, Job.id < sa.bindparam("job_id")),
    ),
)
_SIZE = sa.case((Job.total == 0, 1), else_=Job.total)  # a job without images waits as one image does
_TOTAL_BEFORE = sa.select(sa.func.sum(_SIZE)).where(*_COME_BEFORE)
_UNMADE_OF_EACH = (
    sa.select(
        sa.case(
            (sa.func.count(ImageGeneration.id) == 0, Job.total),  # not planned yet
            else_=sa.func.sum(sa.case((_UNMADE, 1), else_=0)),
        ).label("unmade")
    )
    .outerjoin(Job.images)
    .where(*_COME_BEFORE)
    .group_by(Job.id)
    .subquery()
)
_UNMADE_BEFORE = sa.select(sa.func.sum(_UNMADE_OF_EACH.c.unmade))


def band_of(rank: int, weight: int = 1) -> int:
    """The band of an image with so many of its owner's before it; who weighs more, has more in each band."""
    return min((rank // (FIRST_BAND * weight)).bit_length(), BANDS - 1)


def assign_bands(session: Session, job: Job, images: Sequence[ImageGeneration]) -> None:
    """Tells images of the job, which are about to be queued, where they wait.

    Jobs count from when they are accepted, not from when they are planned: so it doesn't matter who is
    planned first, nor how many workers plan at once.
    """
    before, weight = _open_before(session, job), _weight(session, job)
    for place, image in enumerate(images):
        image.band = band_of(before + place, weight)


def band_of_job(session: Session, job: Job) -> int:
    """Where the job itself waits until its images are planned: nobody's prompts hold up those of all others.

    Each submit asks for it, so jobs count as a whole here, however much of them is made.
    """
    before = session.scalar(_TOTAL_BEFORE, _place(job))
    return band_of(before, _weight(session, job)) if before else 0


def _weight(session: Session, job: Job) -> int:
    """Of the job's owner. Who has no key weighs as others."""
    try:
        key_id = UUID(job.owner)
    except ValueError:
        return 1
    return session.scalar(sa.select(ApiKey.weight).where(ApiKey.id == key_id)) or 1


def _open_before(session: Session, job: Job) -> int:
    """Images for the job's model, in other jobs of its owner that come before it, that are not made yet."""
    return int(session.scalar(_UNMADE_BEFORE, _place(job)) or 0)


def _place(job: Job) -> dict[str, Any]:
    place, model = place_of(job.input.get("priority")), job.input.get("model")
    return {"owner": job.owner, "model": model, "place": place, "job_id": job.id}


def place_of(priority: str | None) -> int:
    """What has a lower one comes first. None: of a job that was accepted before there were priorities."""
    return _ORDER[priority]


# -- what is told to those who wait --------------------------------------------------------------------


def images_ahead(session: Session, job: Job, model: str) -> int:
    """How many images of other jobs come before the job's first.

    Those in hand, those in a lower band, and those that wait longer in its own. Nothing is ahead of a job
    that isn't queued yet.
    """
    waiting = [
        (image.band, image.queued_at)
        for image in job.images
        # one that the broker did not take has its band already, and no time
        if image.status is Status.PENDING and image.band is not None and image.queued_at is not None
    ]
    if not waiting:
        return 0
    band, queued_at = min(waiting)
    query = (
        sa.select(sa.func.count())
        .select_from(ImageGeneration)
        .where(
            ImageGeneration.model == model,
            ImageGeneration.job_id != job.id,
            _UNMADE,
            sa.or_(
                ImageGeneration.status == Status.IN_PROGRESS,
                ImageGeneration.band < band,
                sa.and_(ImageGeneration.band == band, ImageGeneration.queued_at < queued_at),
            ),
        )
    )
    return session.scalar(query) or 0


def seconds_per_image(session: Session, model: str) -> float | None:
    """How long a node takes for one image of this model, by the newest ones; None if none is known.

    Images of a batch share its time.
    """
    query = (
        sa.select(ImageGeneration.timings, ImageGeneration.made_with)
        .where(ImageGeneration.model == model, ImageGeneration.generated_at.is_not(None))
        .order_by(ImageGeneration.generated_at.desc())
        .limit(PACE_FROM)
    )
    took = [
        timings["generate_ms"] / 1000 / max(_batch(made_with), 1)
        for timings, made_with in session.execute(query)
        if timings.get("generate_ms") is not None
    ]
    return sum(took) / len(took) if took else None


def _batch(made_with: dict[str, object]) -> int:
    batch = made_with.get("batch")
    return batch if isinstance(batch, int) else 1


# -- whoever waits for too long ------------------------------------------------------------------------


def passed_over(session: Session, now: datetime, patience: timedelta) -> list[UUID]:
    """For each owner and model whose images wait, and of whom none was begun for so long: the first job.

    Bands alone would let a steady stream of small jobs pass a large one for ever.
    """
    since = now - patience
    query = (
        sa.select(Job.owner, ImageGeneration.model, Job.id, sa.func.min(ImageGeneration.band))
        .join(Job.images)
        .where(
            Job.status.in_(OPEN),
            Job.deleted_at.is_(None),
            ImageGeneration.status == Status.PENDING,
            ImageGeneration.band > 0,
            ImageGeneration.queued_at < since,
        )
        .group_by(Job.owner, ImageGeneration.model, Job.id)
        .order_by(sa.func.min(ImageGeneration.band), Job.id)
    )
    first: dict[tuple[str, str], UUID] = {}
    for owner, model, job_id, _ in session.execute(query):
        first.setdefault((owner, model), job_id)
    return [job_id for (owner, model), job_id in first.items() if not _served(session, owner, model, since)]


def _served(session: Session, owner: str, model: str, since: datetime) -> bool:
    """Whether an image of the owner was begun, or moved forward, since then."""
    query = sa.select(
        sa.exists()
        .where(
            Job.owner == owner,
            Job.updated_at >= since,
            Job.deleted_at.is_(None),
            ImageGeneration.job_id == Job.id,
            ImageGeneration.model == model,
        )
        .where(sa.or_(ImageGeneration.started_at >= since, Job.moved_forward_at >= since))
    )
    return bool(session.scalar(query))


def move_forward(session: Session, job: Job, now: datetime) -> list[ImageGeneration]:
    """The first of a locked job's images that wait go into band 0; they are to be sent again."""
    waiting = [image for image in job.images if image.status is Status.PENDING and image.band]
    chosen = sorted(waiting, key=lambda image: image.index)[:FIRST_BAND]
    for image in chosen:
        image.band = 0
    job.moved_forward_at = job.updated_at = now
    session.flush()
    return chosen

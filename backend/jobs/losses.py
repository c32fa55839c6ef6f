"""Which images may be lost: those that nobody has in hand any more, and those that others have passed."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.jobs.models import OPEN, ImageGeneration, Job, Status

AT_ONCE = 500  # images in one round
OF_EACH_BAND = 100
LOOK_BACK = timedelta(minutes=10)  # at what was made; there is an index for that
MOST_DOUBLINGS = 7  # of the patience with one image

_UNMADE = (Job.status.in_(OPEN), Job.deleted_at.is_(None), ImageGeneration.generated_at.is_(None))


def without_lease(session: Session, now: datetime) -> list[ImageGeneration]:
    """Images that a node has begun and that no live node has in hand."""
    query = (
        sa.select(ImageGeneration)
        .join(Job)
        .where(
            *_UNMADE,
            ImageGeneration.status == Status.IN_PROGRESS,
            sa.or_(ImageGeneration.leased_until < now, ImageGeneration.leased_until.is_(None)),
        )
        .order_by(ImageGeneration.queued_at)
        .limit(AT_ONCE)
    )
    return list(session.scalars(query))


def waiting_for_long(session: Session, now: datetime, patience: timedelta) -> list[ImageGeneration]:
    """Images that no node has begun, for longer than patience allows: twice as long after each sending.

    Of each model and band those that wait longest: thousands that wait in a worse band hide nothing.
    """
    place = sa.func.row_number().over(
        partition_by=(ImageGeneration.model, ImageGeneration.band), order_by=ImageGeneration.queued_at
    )
    waits = (
        sa.select(ImageGeneration.id, place.label("place"))
        .join(Job)
        .where(*_UNMADE, ImageGeneration.status == Status.PENDING, ImageGeneration.queued_at < now - patience)
        .subquery()
    )
    query = sa.select(ImageGeneration).join(waits, waits.c.id == ImageGeneration.id)
    return [
        image
        for image in session.scalars(query.where(waits.c.place <= OF_EACH_BAND))
        if image.queued_at
        and image.queued_at < now - patience * 2 ** min(max(image.sends - 1, 0), MOST_DOUBLINGS)
    ]


def passed(
    session: Session, models: Collection[str], now: datetime, by: timedelta
) -> Callable[[ImageGeneration], bool]:
    """Tells of an image of these models whether others were made that were sent so much later, and waited in
    no better band.
    """
    begun = sa.select(
        ImageGeneration.model, ImageGeneration.band, sa.func.max(ImageGeneration.queued_at)
    ).where(
        ImageGeneration.model.in_(models),
        ImageGeneration.generated_at > now - LOOK_BACK,
    )
    grouped = begun.group_by(ImageGeneration.model, ImageGeneration.band)
    newest = [
        (model, band, queued_at)
        for model, band, queued_at in session.execute(grouped)
        if band is not None and queued_at is not None
    ]

    def was_passed(image: ImageGeneration) -> bool:
        if image.queued_at is None or image.band is None:
            return False
        return any(
            model == image.model and band >= image.band and queued_at - by > image.queued_at
            for model, band, queued_at in newest
        )

    return was_passed

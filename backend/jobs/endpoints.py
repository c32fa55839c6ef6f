"""Endpoints: receivers that are told of all jobs of their owner, and which of their secrets sign.

None of these functions commits.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.errors import Conflict
from backend.jobs import ids
from backend.jobs.admission import wait_for_others
from backend.jobs.models import Job, OwnerSecret, WebhookEndpoint

MOST_ENDPOINTS = 20  # of one owner


@dataclass(frozen=True)
class SecretVersions:
    """Which secrets sign: the newest first; the one before it until a moment that was told."""

    newest: int = 1
    old_until: datetime | None = None

    def signing(self, now: datetime) -> tuple[int, ...]:
        """The versions that sign now."""
        is_old_good = self.old_until is not None and self.old_until > now
        return (self.newest, self.newest - 1) if is_old_good else (self.newest,)


# -- who listens --------------------------------------------------------------------------------------

# For the statement that locks a job: so events of owners without endpoints cost no question more.
HAS_LISTENERS = sa.exists().where(WebhookEndpoint.owner == Job.owner, WebhookEndpoint.enabled).correlate(Job)
_KNOWN = "who listens"
_LISTENERS = sa.select(WebhookEndpoint.id, WebhookEndpoint.events).where(
    WebhookEndpoint.owner == sa.bindparam("owner"), WebhookEndpoint.enabled
)


def listening(session: Session, job: Job, event_type: str) -> list[UUID]:
    """Endpoints that are to be told of such an event of this job. Asks the database once in a transaction."""
    known = _known(session)
    if job.owner not in known:
        with session.no_autoflush:
            found = session.execute(_LISTENERS, {"owner": job.owner})
            known[job.owner] = [(row.id, row.events) for row in found]
    return [endpoint_id for endpoint_id, events in known[job.owner] if event_type in events]


def nobody_listens(session: Session, owner: str) -> None:
    """It is known already, in this transaction."""
    _known(session).setdefault(owner, [])


def _known(session: Session) -> dict[str, list[tuple[UUID, list[str]]]]:
    """Who listens, by owner. A session is one transaction: see `Database.session_scope`."""
    known: dict[str, list[tuple[UUID, list[str]]]] = session.info.setdefault(_KNOWN, {})
    return known


# -- the owner's endpoints ----------------------------------------------------------------------------


def list_endpoints(session: Session, owner: str) -> list[WebhookEndpoint]:
    """All of the owner, oldest first."""
    query = sa.select(WebhookEndpoint).where(WebhookEndpoint.owner == owner).order_by(WebhookEndpoint.id)
    return list(session.scalars(query))


def get(session: Session, endpoint_id: UUID, owner: str | None = None) -> WebhookEndpoint | None:
    """The endpoint; None if there is none, or it is somebody else's."""
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    return endpoint if endpoint is not None and owner in (None, endpoint.owner) else None


def lock(session: Session, endpoint_id: UUID, owner: str | None = None) -> WebhookEndpoint | None:
    """The same, locked until the session ends."""
    query = sa.select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).with_for_update()
    endpoint = session.scalar(query)
    return endpoint if endpoint is not None and owner in (None, endpoint.owner) else None


def add(session: Session, owner: str, now: datetime, **values: object) -> WebhookEndpoint:
    """A new one. Raises `Conflict` if the owner has too many."""
    wait_for_others(session, f"\nwebhook endpoints/{owner}")
    count = sa.select(sa.func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.owner == owner)
    if (session.scalar(count) or 0) >= MOST_ENDPOINTS:
        raise Conflict(f"You have {MOST_ENDPOINTS} endpoints; more there can't be.")
    endpoint = WebhookEndpoint(
        id=ids.new_id(), owner=owner, secret_version=1, created_at=now, updated_at=now, **values
    )
    session.add(endpoint)
    return endpoint


# -- their secrets ------------------------------------------------------------------------------------


def rotate(secret: WebhookEndpoint | OwnerSecret, now: datetime, grace: timedelta) -> SecretVersions:
    """A new secret; the one that was new until now signs as well for a while."""
    secret.secret_version += 1
    secret.old_secret_until = now + grace
    return versions(secret)


def versions(secret: WebhookEndpoint | OwnerSecret | None) -> SecretVersions:
    """Which secrets sign. None: it was never changed."""
    if secret is None:
        return SecretVersions()
    return SecretVersions(secret.secret_version, secret.old_secret_until)


def owner_secret(session: Session, owner: str) -> OwnerSecret | None:
    """What is known of the secret for webhooks of single jobs; None: it was never changed."""
    return session.get(OwnerSecret, owner)


def rotate_owner_secret(session: Session, owner: str, now: datetime, grace: timedelta) -> SecretVersions:
    """The same as `rotate`, for webhooks of single jobs."""
    wait_for_others(session, f"\nwebhook secret/{owner}")
    secret = owner_secret(session, owner)
    if secret is None:
        secret = OwnerSecret(owner=owner, secret_version=1)
        session.add(secret)
    return rotate(secret, now, grace)

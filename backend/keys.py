"""API keys: shown once, stored as a hash, found by their prefix, revocable."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
import uuid_utils.compat
from sqlalchemy.orm import Session

from backend.errors import InvalidRequest, NotFound
from backend.jobs.models import ApiKey

SCHEME = "ff"  # ff_<prefix>_<secret>
MOST_WEIGHT = 100
_PREFIX_BYTES = 5


def create(session: Session, name: str, weight: int = 1) -> tuple[ApiKey, str]:
    """A new key and its text, which nobody can have a second time."""
    name = name.strip()
    if not 1 <= len(name) <= 128 or not name.isprintable():
        raise InvalidRequest("A key needs a name of 1 to 128 printable characters.")
    prefix = secrets.token_hex(_PREFIX_BYTES)
    text = f"{SCHEME}_{prefix}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=uuid_utils.compat.uuid7(), name=name, prefix=prefix, hash=_hash(text),
        weight=_checked(weight), created_at=datetime.now(UTC),
    )  # fmt: skip
    session.add(key)
    session.flush()
    return key, text


def looks_like_one(text: str) -> bool:
    """Whether it begins as all keys do."""
    return text.startswith(f"{SCHEME}_")


def find(session: Session, text: str) -> ApiKey | None:
    """The key that this text is, unless it was revoked."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != SCHEME:
        return None
    key = session.scalar(sa.select(ApiKey).where(ApiKey.prefix == parts[1][:16]))
    if key is None or not hmac.compare_digest(key.hash, _hash(text)):
        return None
    return None if key.revoked_at else key


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, the revoked ones too, oldest first."""
    return list(session.scalars(sa.select(ApiKey).order_by(ApiKey.id)))


def revoke(session: Session, prefix_or_id: str) -> ApiKey:
    """Ends a key; its jobs stay. Raises `NotFound`. A key that is revoked already stays as it is."""
    key = _find(session, prefix_or_id)
    key.revoked_at = key.revoked_at or datetime.now(UTC)
    return key


def weigh(session: Session, prefix_or_id: str, weight: int) -> ApiKey:
    """Gives an owner so many times the share of others, from the next job on. Raises `NotFound`."""
    key = _find(session, prefix_or_id)
    key.weight = _checked(weight)
    return key


def _find(session: Session, prefix_or_id: str) -> ApiKey:
    wanted = prefix_or_id.removeprefix(f"{SCHEME}_").split("_")[0]
    query = sa.select(ApiKey).where(sa.or_(ApiKey.prefix == wanted, ApiKey.id == _uuid_or_none(prefix_or_id)))
    key = session.scalar(query)
    if key is None:
        raise NotFound("There is no such key. `fanfare keys list` shows them.")
    return key


def _checked(weight: int) -> int:
    if not 1 <= weight <= MOST_WEIGHT:
        raise InvalidRequest(f"A weight is a whole number from 1 to {MOST_WEIGHT}.")
    return weight


def any_exist(session: Session) -> bool:
    """Whether a key was ever made, be it revoked: from then on every request needs one."""
    return bool(session.scalar(sa.select(sa.exists().where(ApiKey.id.is_not(None)))))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

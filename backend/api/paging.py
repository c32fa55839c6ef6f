"""Pages of a list that is sorted by id, newest first: cursors, and the URLs of the pages beside."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request

from backend.errors import FieldError, InvalidRequest


class Row(Protocol):
    """What is listed."""

    @property
    def id(self) -> UUID:
        """Its place in the list."""
        ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Cursor:
    """From where on, and in which direction. At most one of them is given."""

    before: UUID | None = None
    after: UUID | None = None


@dataclass(frozen=True)
class Page(Generic[R]):
    """A part of the list."""

    rows: list[R]
    next: str | None  # URLs
    previous: str | None


def read_cursor(text: str | None) -> Cursor:
    """Raises `InvalidRequest` for what we never gave out."""
    if text is None:
        return Cursor()
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        direction, at = raw[:1].decode(), UUID(bytes=raw[1:])
        return {"b": Cursor(before=at), "a": Cursor(after=at)}[direction]
    except (ValueError, KeyError, binascii.Error) as exc:
        detail = "take it from `next` or `previous` as it is"
        raise InvalidRequest("This is no cursor of ours.", errors=(FieldError("cursor", detail),)) from exc


def cut(
    request: Request, base: str, cursor: Cursor, limit: int, ask: Callable[[int], Sequence[R]]
) -> Page[R]:
    """The page at the cursor. `ask` is given how many rows are wanted, one more than are shown."""
    found = list(ask(limit + 1))
    more = len(found) > limit
    if more:
        found = found[1:] if cursor.after else found[:-1]
    older = bool(found) if cursor.after else more
    newer = more if cursor.after else cursor.before is not None and bool(found)
    return Page(
        found,
        next=_url(request, base, "b", found[-1].id) if older and found else None,
        previous=_url(request, base, "a", found[0].id) if newer and found else None,
    )


def _url(request: Request, base: str, direction: Literal["a", "b"], at: UUID) -> str:
    token = base64.urlsafe_b64encode(direction.encode() + at.bytes).decode().rstrip("=")
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{base}{request.url.path}?{urlencode([*kept, ('cursor', token)])}"

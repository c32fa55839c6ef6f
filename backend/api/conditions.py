"""Conditional and partial requests (RFC 9110): which part of an object is asked for, and whether at all."""

import re
from email.utils import formatdate, parsedate_to_datetime

from starlette.datastructures import Headers

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


class RangeNotSatisfiable(Exception):
    """The range lies outside of the object."""


def is_unchanged(headers: Headers, etag: str, modified: float) -> bool:
    """Whether the client has this very version already. `etag` with its quotes, `modified` in Unix time."""
    known = headers.get("if-none-match")
    if known is not None:
        return known.strip() == "*" or etag in _ETAG.findall(known)
    since = headers.get("if-modified-since")
    return since is not None and int(modified) <= _parse_date(since)


def wanted_part(headers: Headers, size: int, etag: str, modified: float) -> range | None:
    """The bytes asked for; None: all of them, also where several ranges, or nonsense, were asked for.

    Raises `RangeNotSatisfiable`.
    """
    asked = headers.get("range")
    known = headers.get("if-range")
    if asked is None or (known is not None and known.strip() not in (etag, http_date(modified))):
        return None
    match = _RANGE.fullmatch(asked)
    return _resolve(match[1], match[2], size) if match else None


def http_date(moment: float) -> str:
    """Unix time, as in `Last-Modified`."""
    return formatdate(int(moment), usegmt=True)


def _resolve(first: str, last: str, size: int) -> range | None:
    if not first and not last:
        return None
    if not first:  # the last so many
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable
    return range(start, end)


def _parse_date(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return float("-inf")

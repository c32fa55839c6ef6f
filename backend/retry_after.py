"""What a server says of when to ask it again (RFC 9110, section 10.2.3): seconds, or a date."""

import email.utils
import math
import time
from collections.abc import Iterable


def asked_by(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How many whole seconds the server wants to be left alone; None: it doesn't say, or not sensibly."""
    for name, value in headers:
        if name.lower() == b"retry-after":
            seconds = seconds_of(value.decode("latin-1"))
            return None if seconds is None else math.ceil(seconds)
    return None


def seconds_of(value: str) -> float | None:
    """How long to wait by a `Retry-After`; not below 0. None: it says nothing, or nothing sensible."""
    text = value.strip()
    seconds = _number(text)
    return _until(text) if seconds is None else seconds


def _number(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(text: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - time.time())

"""What the errors of Supabase Storage mean: ours for the caller, plain words for whoever runs the server."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
from storage3.exceptions import StorageApiError
from storage3.utils import StorageException
from supabase import SupabaseException

from backend.errors import InvalidKey, ObjectNotFound, StorageUnavailable

log = logging.getLogger(__name__)

SHOWN = 300  # characters of an error: it may be a whole web page


class BadAnswer(Exception):
    """The server answered, but not as Supabase Storage does."""


# The library takes answers apart as if each were what it should be: a web page raises ValueError (as
# JSONDecodeError and pydantic's ValidationError, too), other JSON one of the three after it.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, BadAnswer)
FAILURES = (StorageException, httpx.HTTPError, httpx.InvalidURL, *_MALFORMED)

_PASSING_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,  # somebody else stores the same object at this moment: all of ours may replace
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_LASTING_FAULTS = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)

_KEY_IS_WRONG = "refused: FANFARE_SUPABASE_SERVICE_ROLE_KEY must be the service_role key, or a secret one"
_WHAT_TO_DO = {
    "400": "see FANFARE_SUPABASE_URL, FANFARE_STORAGE_URL, and whether the key is of this project",
    "401": _KEY_IS_WRONG,
    "403": _KEY_IS_WRONG,
    "404": "nothing is there: see FANFARE_SUPABASE_URL",
    "413": "the bucket's or the project's file size limit is too small",
    "415": "the bucket doesn't allow this MIME type: see its settings",
}
_NO_BUCKET = (
    "there is no such bucket, or the key may not see it: create it, or see FANFARE_STORAGE_URL and "
    "FANFARE_SUPABASE_SERVICE_ROLE_KEY (the service_role key, or a secret one)"
)


@contextmanager
def translated(bucket: str) -> Iterator[None]:
    """Turns everything that supabase-py raises into the port's own errors, and tells the operator why."""
    try:
        yield
    except StorageApiError as exc:
        if is_absent(exc):
            raise ObjectNotFound from exc
        if exc.code == "InvalidKey":
            raise InvalidKey from exc
        raise _unavailable(bucket, _explain(exc)) from exc
    except httpx.ConnectError as exc:
        raise _unavailable(bucket, f"not reached ({exc}): see FANFARE_SUPABASE_URL") from exc
    except (TimeoutError, SupabaseException, *FAILURES) as exc:
        raise _unavailable(bucket, f"{type(exc).__name__}: {exc}") from exc


def status_of(exc: StorageApiError) -> int:
    """As Storage says it in its answer, or else the gateway's; 0 where there is none."""
    status = str(exc.status)
    return int(status) if status.isdecimal() else 0


def is_absent(exc: StorageApiError) -> bool:
    """Whether Storage itself says that the object isn't there.

    It says so in a string; a number comes from something before it, which knows nothing of objects. Who
    may not see the bucket is told the same: be sure of the bucket before you believe it.
    """
    return isinstance(exc.status, str) and exc.status == "404" and exc.code in ("not_found", "NoSuchKey")


def is_passing(exc: BaseException) -> bool:
    """Whether the same request may do in a moment."""
    if isinstance(exc, StorageApiError):
        status = status_of(exc)
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING_STATUSES
    return not isinstance(exc, _LASTING_FAULTS)


def _explain(exc: StorageApiError) -> str:
    if status_of(exc) == HTTPStatus.NOT_FOUND and exc.code == "Bucket not found":
        return _NO_BUCKET
    hint = _WHAT_TO_DO.get(str(exc.status))
    told = f"{exc.status} {exc.code}: {exc.message}"
    return f"{told[:SHOWN]} ({hint})" if hint else told


def _unavailable(bucket: str, why: str) -> StorageUnavailable:
    """The client hears only that it doesn't work; the reason may name hosts and keys."""
    log.error("the Supabase bucket %s doesn't work: %s", bucket, why[: 2 * SHOWN])
    return StorageUnavailable()

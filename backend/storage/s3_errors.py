"""What the errors of S3 mean: ours for the caller, plain words for whoever runs the server."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    NoCredentialsError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from backend.errors import ObjectNotFound, StorageUnavailable

log = logging.getLogger(__name__)


class BadAnswer(Exception):
    """The server answered, but not as S3 does."""


_ABSENT = {"NoSuchKey", "NotFound", "404"}
_NO_SUCH_VERB = {400, 403, 405, 411, 501}

# ValueError: an endpoint's URL that isn't one. ResponseParserError isn't one of BotoCoreError.
_FAILURES = (BotoCoreError, ResponseParserError, HTTPError, BadAnswer, TimeoutError, ValueError)

_WHAT_TO_DO = {
    "NoSuchBucket": "there is no such bucket: create it, or mend FANFARE_STORAGE_URL",
    "InvalidAccessKeyId": "the access key is not known there: see FANFARE_S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: see FANFARE_S3_SECRET_ACCESS_KEY",
    "AccessDenied": "not allowed: the key needs s3:GetObject, PutObject and DeleteObject on the prefix, and "
    "s3:ListBucket, without which S3 says the same of an object that isn't there",
    "ExpiredToken": "the session token has expired: see FANFARE_S3_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "PermanentRedirect": "the bucket is in another region: see FANFARE_S3_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: see FANFARE_S3_REGION",
    "403": "refused: key, secret or rights are wrong",
    "301": "the bucket is in another region: see FANFARE_S3_REGION",
}


@contextmanager
def translated(bucket: str) -> Iterator[None]:
    """Turns everything that boto3 raises into the port's own errors, and tells the operator why."""
    try:
        yield
    except ClientError as exc:
        if is_absent(exc):
            raise ObjectNotFound from exc
        raise _unavailable(bucket, _explain(exc)) from exc
    except NoCredentialsError as exc:
        raise _unavailable(bucket, "no credentials found: see FANFARE_S3_ACCESS_KEY_ID") from exc
    except ConnectionError as exc:
        raise _unavailable(bucket, f"not reached ({exc}): see FANFARE_S3_ENDPOINT_URL") from exc
    except _FAILURES as exc:
        raise _unavailable(bucket, f"{type(exc).__name__}: {exc}") from exc


def code_of(exc: ClientError) -> str:
    """S3's word for the error, or the HTTP status where it said none."""
    return str(exc.response.get("Error", {}).get("Code", "unknown"))


def status_of(exc: ClientError) -> int:
    """The HTTP status; 0 where there was none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_absent(exc: ClientError) -> bool:
    """Whether the object, rather than anything else, isn't there."""
    return code_of(exc) in _ABSENT


def refuses_batches(exc: ClientError) -> bool:
    """Whether the server may just not know how to delete many at once (or wants it in another way)."""
    return status_of(exc) in _NO_SUCH_VERB


def _explain(exc: ClientError) -> str:
    code = code_of(exc)
    hint = _WHAT_TO_DO.get(code)
    return f"{code}: {hint}" if hint else f"{code} ({exc})"


def _unavailable(bucket: str, why: str) -> StorageUnavailable:
    """The client hears only that it doesn't work; the reason may name hosts and keys."""
    log.error("the S3 bucket %s doesn't work: %s", bucket, why)
    return StorageUnavailable()

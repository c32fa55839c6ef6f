"""Storage in S3, at Amazon or at any other server that speaks it."""

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from backend.errors import ObjectTooLarge
from backend.storage.base import ListedObject, SignedDownload, StoredObject, Unfinished
from backend.storage.deadline import run_within
from backend.storage.keys import CHECKS, OTHER, check_content_type, check_key, check_prefix, is_key
from backend.storage.s3_clients import Credentials, S3Clients
from backend.storage.s3_errors import BadAnswer, is_absent, refuses_batches, translated
from contract.messages import SignedUpload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

T = TypeVar("T")
log = logging.getLogger(__name__)

GET_ATTEMPTS = 3  # boto3 doesn't try again once the body has begun
CHECK_TIMEOUT_S = 10
BATCH = 1000  # what S3 deletes in one request, at most
PAGE = 1000  # and what it lists
LONGEST_S = 7 * 86400  # no signature lives longer
CHUNK_BYTES = 256 * 1024
CACHE_CONTROL = "private, max-age=604800, immutable"  # what has a key never changes its looks
PUBLIC_CACHE_CONTROL = "public, max-age=31536000, immutable"


class _NoBatches(Exception):
    """The server doesn't delete many objects in one request."""


_BODY_CUT = (ResponseStreamingError, FlexibleChecksumError, IncompleteReadError, ReadTimeoutError)


class S3Storage:
    """Objects under `prefix` in one bucket. Nothing connects before the first verb.

    Clients and nodes may see the same bucket at other addresses than the backend; an empty
    `access_key_id` means boto3's own search for credentials (environment, profile, instance role).
    """

    name = "s3"

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        node_endpoint_url: str | None = None,
        region: str = "us-east-1",
        access_key_id: str = "",
        secret_access_key: str = "",
        session_token: str = "",
        timeout_s: float = 60,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._endpoint_url = endpoint_url or None
        self._public_endpoint_url = public_endpoint_url or self._endpoint_url
        self._node_endpoint_url = node_endpoint_url or self._endpoint_url
        credentials = Credentials(access_key_id, secret_access_key, session_token)
        self._clients = S3Clients(bucket, region, credentials)
        self._timeout_s = timeout_s
        self._one_by_one = False  # the server can't delete many at once
        self._steady_get = lru_cache(maxsize=8192)(self._presign_get)

    # -- the port -------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, content_type: str, *, public: bool = False) -> None:
        """See the port."""
        check_content_type(key, content_type)
        name, kept = self._name(key), PUBLIC_CACHE_CONTROL if public else CACHE_CONTROL
        self._call(lambda: self._put(name, data, content_type, kept))

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See the port."""
        name = self._name(key)
        return self._call(lambda: self._get(name, max_bytes))

    def stat(self, key: str) -> StoredObject:
        """See the port."""
        name = self._name(key)
        return self._call(lambda: self._stat(key, name))

    def delete(self, keys: Iterable[str]) -> None:
        """See the port."""
        names = list(dict.fromkeys(self._name(key) for key in keys))
        for start in range(0, len(names), BATCH):
            self._delete(names[start : start + BATCH])

    def walk(self, prefix: str) -> Iterator[ListedObject]:
        """See the port. One request for each thousand."""
        name, after = self._prefix + check_prefix(prefix), ""
        while True:
            page = self._call(partial(self._list, name, after))
            for found in page.get("Contents", []):
                key = found["Key"].removeprefix(self._prefix)
                if is_key(key):
                    yield ListedObject(key, found["Size"], found["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            after = page["NextContinuationToken"]

    def forget_unfinished(self, *, dry_run: bool = False) -> Unfinished:  # noqa: ARG002 - the port's
        """See the port. A PUT is whole or not at all, and uploads in parts are not used."""
        return Unfinished()

    def download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See the port. The same URL for a while, within this process, so that browsers' caches can work."""
        name, at = self._name(key), self._public_endpoint_url
        with translated(self._bucket):
            window = 0 if self._clients.end_soon() else min(expires_in // 2, LONGEST_S - expires_in)
            if window <= 0:
                return self._presign_get(name, expires_in, at)
            return self._steady_get(name, expires_in + window, at, int(time.time() // window))

    def download_urls(self, keys: Iterable[str], *, expires_in: int) -> list[SignedDownload]:
        """See the port."""
        return [self.download_url(key, expires_in=expires_in) for key in keys]

    def node_download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See the port."""
        name = self._name(key)
        with translated(self._bucket):
            return self._presign_get(name, expires_in, self._node_endpoint_url)

    def upload_url(self, key: str, *, content_type: str, max_bytes: int, expires_in: int) -> SignedUpload:
        """See the port. S3 can't bind the size: look at `stat` after the upload."""
        return self._upload_url(self._node_endpoint_url, key, content_type, max_bytes, expires_in)

    def client_upload_url(
        self, key: str, *, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        """See the port."""
        return self._upload_url(self._public_endpoint_url, key, content_type, max_bytes, expires_in)

    def _upload_url(
        self, at: str | None, key: str, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        check_content_type(key, content_type)
        headers = {"Content-Type": content_type, "Cache-Control": CACHE_CONTROL}
        expires_in = min(expires_in, LONGEST_S)
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        params = {"ContentType": content_type, "CacheControl": CACHE_CONTROL}
        with translated(self._bucket):
            url = self._clients.at(at).generate_presigned_url(
                "put_object",
                Params={"Bucket": self._bucket, "Key": self._name(key), **params},
                ExpiresIn=expires_in,
            )
        return SignedUpload(url=url, headers=headers, expires_at=expires_at, max_bytes=max_bytes)

    def check(self) -> None:
        """See the port."""
        self._call(self._check, min(CHECK_TIMEOUT_S, self._timeout_s))

    # -- the verbs, in a thread with a deadline -------------------------------------------------------

    def _put(self, name: str, data: bytes, content_type: str, cache_control: str) -> None:
        answer = self._own.put_object(
            Bucket=self._bucket, Key=name, Body=data, ContentType=content_type, CacheControl=cache_control
        )
        if not answer.get("ETag"):
            raise BadAnswer("the answer to a PUT has no ETag: this isn't an S3 server")

    def _get(self, name: str, max_bytes: int) -> bytes:
        """Tries again when the body was cut or garbled on the way."""
        attempt = 1
        while True:
            try:
                return self._read(name, max_bytes)
            except _BODY_CUT as exc:
                if attempt == GET_ATTEMPTS:
                    raise
                log.warning("reading %s once more: %s", name, exc)
                time.sleep(random.uniform(0.1, 0.4) * 2**attempt)  # noqa: S311 - jitter
                attempt += 1

    def _read(self, name: str, max_bytes: int) -> bytes:
        answer = self._own.get_object(Bucket=self._bucket, Key=name)
        body, data = answer["Body"], bytearray()
        try:
            if answer.get("ContentLength", 0) > max_bytes:
                raise ObjectTooLarge
            for chunk in body.iter_chunks(CHUNK_BYTES):
                data += chunk
                if len(data) > max_bytes:
                    raise ObjectTooLarge
        finally:
            body.close()
        return bytes(data)

    def _stat(self, key: str, name: str) -> StoredObject:
        try:
            found = self._own.head_object(Bucket=self._bucket, Key=name)
        except ClientError as exc:
            if is_absent(exc):
                self._confirm_bucket()
            raise
        etag = found.get("ETag", "").strip('"')
        return StoredObject(key, found["ContentLength"], found.get("ContentType", OTHER), etag)

    def _confirm_bucket(self) -> None:
        """A HEAD has no words: a missing bucket must not look like a deleted object."""
        try:
            self._own.head_bucket(Bucket=self._bucket)
        except ClientError as exc:
            if is_absent(exc):
                raise BadAnswer("there is no such bucket: see FANFARE_STORAGE_URL") from exc

    def _list(self, name: str, after: str) -> "ListObjectsV2OutputTypeDef":
        going_on: Any = {"ContinuationToken": after} if after else {}
        try:
            page = self._own.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=PAGE, **going_on)
        except ClientError as exc:
            if is_absent(exc):
                raise BadAnswer("there is nothing to list: see FANFARE_STORAGE_URL") from exc
            raise
        if not page.keys() & {"Name", "KeyCount", "MaxKeys"}:
            raise BadAnswer("the answer to a listing is none: this isn't an S3 server")
        if page.get("IsTruncated") and page.get("NextContinuationToken", after) == after:
            raise BadAnswer("a listing that has more to come doesn't say how to go on")
        return page

    def _delete(self, names: list[str]) -> None:
        if not self._one_by_one:
            try:
                return self._call(lambda: self._delete_together(names))
            except _NoBatches:
                log.warning("the S3 server doesn't delete many objects at once: one by one, then")
        for name in names:
            self._call(lambda name=name: self._delete_one(name))  # type: ignore[misc]
        self._one_by_one = True  # only now: a wrong key gets as far as here, too
        return None

    def _delete_together(self, names: list[str]) -> None:
        try:
            answer = self._own.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in names]}
            )
        except ClientError as exc:
            if refuses_batches(exc):
                raise _NoBatches from exc
            raise
        if not answer.get("Deleted") and not answer.get("Errors"):
            raise BadAnswer("the answer to a deletion names no objects: this isn't an S3 server")
        errors = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if errors:
            raise BadAnswer(f"{len(errors)} objects were not deleted, the first for: {errors[0]}")

    def _delete_one(self, name: str) -> None:
        try:
            self._own.delete_object(Bucket=self._bucket, Key=name)
        except ClientError as exc:
            if not is_absent(exc):
                raise

    def _check(self) -> None:
        name, data = f"{self._prefix}{CHECKS}{secrets.token_hex(8)}.txt", b"fanfare"
        self._put(name, data, "text/plain", CACHE_CONTROL)
        if self._read(name, len(data)) != data:
            raise BadAnswer("what was written is not what is read")
        self._delete_one(name)

    # -- inside ---------------------------------------------------------------------------------------

    def _call(self, verb: Callable[[], T], seconds: float | None = None) -> T:
        with translated(self._bucket):
            return run_within(seconds or self._timeout_s, verb)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _presign_get(self, name: str, expires_in: int, at: str | None, _window: int = 0) -> SignedDownload:
        expires_in = min(expires_in, LONGEST_S)
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        url = self._clients.at(at).generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": name}, ExpiresIn=expires_in
        )
        return SignedDownload(url, expires_at)

    @property
    def _own(self) -> "S3Client":
        return self._clients.at(self._endpoint_url)

"""Storage in a bucket of Supabase Storage, by supabase-py."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from storage3.exceptions import StorageApiError
from storage3.types import CreateSignedUploadUrlOptions
from yarl import URL

from backend.errors import ObjectTooLarge
from backend.storage.base import ListedObject, SignedDownload, StoredObject, Unfinished
from backend.storage.deadline import run_within
from backend.storage.keys import CHECKS, check_content_type, check_key, check_prefix, is_key
from backend.storage.supabase_answers import Entry, Info, md5, read_page
from backend.storage.supabase_client import ANSWER_BYTES, SupabaseClient, bounded, tried_again
from backend.storage.supabase_errors import BadAnswer, is_absent, translated
from backend.storage.supabase_urls import (
    CLOCKS_DIFFER_S,
    UPLOAD_S,
    SignedUrl,
    SteadyUrls,
    at,
    upload_lifetime,
)
from contract.messages import SignedUpload

if TYPE_CHECKING:
    from storage3._sync.file_api import SyncBucketProxy

T = TypeVar("T")

CHECK_TIMEOUT_S = 10
SIGN_TIMEOUT_S = 10  # somebody waits for the answer that the URLs are in
PAGE = 1000  # names asked for at once
SHORT_PAGE = 100  # the server gives fewer than asked for, but so many unless it is the last page
DELETED_AT_ONCE = 500
SIGNED_AT_ONCE = 1000
MAX_AGE_S = 7 * 86400  # what has a key never changes its looks
PUBLIC_MAX_AGE_S = 365 * 86400
CACHE_CONTROL = f"private, max-age={MAX_AGE_S}, immutable"
NO_METADATA = "e30="  # {} in base64: an upload takes away what was said of the bytes before


class SupabaseStorage:
    """Objects under `prefix` in one bucket. Nothing connects before the first verb.

    Clients and nodes may see the project at other addresses than the backend. Each URL is signed by the
    server: asked for many at once, and kept. The key must be one that no policy binds (service_role).

    Raises `InvalidKey` for a prefix that no key may have, ValueError for an address that is none.
    """

    name = "supabase"

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        url: str,
        key: str,
        public_url: str = "",
        node_url: str = "",
        timeout_s: float = 60,
    ) -> None:
        self._bucket = bucket
        self._prefix = check_prefix(f"{prefix.strip('/')}/".lstrip("/"))
        self._url = str(URL(url)).rstrip("/")  # as the library will write it
        self._public_url = (public_url or url).rstrip("/")
        self._node_url = (node_url or url).rstrip("/")
        self._client = SupabaseClient(self._url, key)
        self._timeout_s = timeout_s
        self._steady = SteadyUrls()
        self._steady_uploads = SteadyUrls()
        self._md5_etags: bool | None = None  # whether etags are what they look like; None: not known yet

    # -- the port -------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, content_type: str, *, public: bool = False) -> None:
        """See the port. Supabase says only for how long it may be kept, not by whom."""
        check_content_type(key, content_type)
        name, kept_s = self._name(key), PUBLIC_MAX_AGE_S if public else MAX_AGE_S
        self._call(lambda: self._put(name, data, content_type, kept_s))

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See the port."""
        name = self._name(key)
        return self._call(lambda: self._get(key, name, max_bytes), max_bytes=max_bytes)

    def stat(self, key: str) -> StoredObject:
        """See the port."""
        name = self._name(key)
        return self._call(lambda: self._info(key, name)).stored

    def delete(self, keys: Iterable[str]) -> None:
        """See the port."""
        names = list(dict.fromkeys(self._name(key) for key in keys))
        for some in _portions(names, DELETED_AT_ONCE):
            self._call(lambda some=some: self._delete(some))  # type: ignore[misc]

    def walk(self, prefix: str) -> Iterator[ListedObject]:
        """See the port. A request for each folder: where there are very many, S3 takes fewer."""
        folder, _, beginning = (self._prefix + check_prefix(prefix)).rpartition("/")
        yield from self._below(folder, beginning)

    def forget_unfinished(self, *, dry_run: bool = False) -> Unfinished:  # noqa: ARG002 - the port's
        """See the port. An upload is whole or not at all, and resumable ones are not used."""
        return Unfinished()

    def download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See `download_urls`."""
        (signed,) = self.download_urls([key], expires_in=expires_in)
        return signed

    def download_urls(self, keys: Iterable[str], *, expires_in: int) -> list[SignedDownload]:
        """See the port. The same URLs for a while, within this process, so that browsers' caches can work.

        Supabase signs only what is there: the URL of anything else is one that it refuses.
        """
        names = [self._name(key) for key in keys]
        found = self._steady.find(names, expires_in)
        asked = list(dict.fromkeys(name for name in names if name not in found))
        for some in _portions(asked, SIGNED_AT_ONCE):
            signed = self._signed(some, expires_in + expires_in // 2, self._public_url)
            self._steady.keep({name: one for name, one in signed.items() if "token=" in one.url})
            found |= signed
        return [SignedDownload(found[name].url, found[name].expires_at) for name in names]

    def node_download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See the port, and `download_urls`."""
        name = self._name(key)
        signed = self._signed([name], expires_in, self._node_url)[name]
        return SignedDownload(signed.url, signed.expires_at)

    def upload_url(self, key: str, *, content_type: str, max_bytes: int, expires_in: int) -> SignedUpload:
        """See the port. Good for two hours at most, by the server's own setting.

        Neither size nor content type are bound: look at what is there after the upload.
        """
        check_content_type(key, content_type)
        signed = self._signed_upload(self._name(key), self._node_url)
        return _upload(signed, content_type, max_bytes, expires_in)

    def client_upload_url(
        self, key: str, *, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        """The same for clients, who are told it each time that they look: it is kept for a while."""
        check_content_type(key, content_type)
        name = self._name(key)
        found = self._steady_uploads.find([name], min(expires_in, UPLOAD_S // 2))
        if name not in found:
            found = {name: self._signed_upload(name, self._public_url)}
            self._steady_uploads.keep(found)
        return _upload(found[name], content_type, max_bytes, expires_in)

    def check(self) -> None:
        """See the port."""
        seconds = min(CHECK_TIMEOUT_S, self._timeout_s)
        self._call(self._confirm_bucket, seconds)
        self._call(self._check, seconds)

    def close(self) -> None:
        """Gives the connections back; what is used once more opens new ones."""
        self._client.close()

    # -- the verbs, in a thread with a deadline, tried again ----------------------------------------------

    def _put(self, name: str, data: bytes, content_type: str, kept_s: int = MAX_AGE_S) -> None:
        self._objects.upload(
            name,
            data,
            {
                "content-type": content_type,
                "cache-control": str(kept_s),
                "upsert": "true",  # also after an attempt whose answer was lost
                "metadata": {"sha256": hashlib.sha256(data).hexdigest()},
            },
        )

    def _get(self, key: str, name: str, max_bytes: int) -> bytes:
        """The library takes whatever is sent for the object: only what fits its description is believed."""
        info = self._info(key, name)
        if info.stored.bytes > max_bytes:
            raise ObjectTooLarge
        data = self._absent_or_not(lambda: self._objects.download(name))
        if info.is_of(data, etag_is_md5=True):
            return data
        if info.is_of(data, etag_is_md5=False) and not self._are_etags_md5():
            return data
        raise BadAnswer(f"{len(data)} bytes came for {name}, which are not those that were stored")

    def _info(self, key: str, name: str) -> Info:
        return Info.read(key, self._absent_or_not(lambda: self._objects.info(name)))

    def _absent_or_not(self, verb: Callable[[], T]) -> T:
        """Who may not see the bucket is told the same as of an object that isn't there."""
        try:
            return verb()
        except StorageApiError as exc:
            if is_absent(exc):
                self._confirm_bucket()
            raise

    def _confirm_bucket(self) -> None:
        if self._client.storage.get_bucket(self._bucket).id != self._bucket:
            raise BadAnswer("another bucket was described than was asked for")

    def _delete(self, names: list[str]) -> None:
        """Those that aren't there are not in the answer; nor are those that the key may not delete."""
        answer = self._objects.remove(names)
        if not isinstance(answer, list):
            raise BadAnswer("the answer to a deletion is no list")
        if {one["name"] for one in answer} < set(names):
            self._confirm_bucket()

    def _below(self, folder: str, beginning: str = "") -> Iterator[ListedObject]:
        above = f"{folder}/" if folder else ""
        for name, entry in self._entries_in(folder):
            key = f"{above}{name}".removeprefix(self._prefix)
            if not name.startswith(beginning) or not is_key(key):
                continue
            if entry is None:
                yield from self._below(f"{above}{name}")
            else:
                yield ListedObject(key, *entry)

    def _entries_in(self, folder: str) -> Iterable[tuple[str, Entry]]:
        """With their names. Read at once: pages shift where it is changed meanwhile."""
        entries: dict[tuple[str, bool], tuple[str, Entry]] = {}  # a folder may have the name of an object
        offset = 0
        while True:
            page = self._call(lambda offset=offset: self._list(folder, offset))  # type: ignore[misc]
            entries |= {(name, entry is None): (name, entry) for name, entry in page}
            offset += len(page)
            if len(page) < SHORT_PAGE:
                return entries.values()

    def _list(self, folder: str, offset: int) -> list[tuple[str, Entry]]:
        page = read_page(self._objects.list(folder, {"limit": PAGE, "offset": offset}))
        if not page and not offset:
            self._confirm_bucket()
        return page

    def _signed(self, names: list[str], expires_in: int, address: str) -> dict[str, SignedUrl]:
        until = datetime.now(UTC) + timedelta(seconds=expires_in)
        seconds = min(SIGN_TIMEOUT_S, self._timeout_s)
        urls = self._call(lambda: self._sign(names, expires_in), seconds)
        return {name: SignedUrl(at(address, self._url, url), until) for name, url in urls.items()}

    def _sign(self, names: list[str], expires_in: int) -> dict[str, str]:
        answer = {one["path"]: one for one in self._objects.create_signed_urls(names, expires_in)}
        if any(answer[name]["error"] for name in names):
            self._confirm_bucket()
        return {name: self._checked(name, answer[name]["signedURL"]) for name in names}

    def _checked(self, name: str, url: str | None) -> str:
        expected = f"{self._url}/storage/v1/object/sign/{self._bucket}/{name}"
        if url and not url.startswith(f"{expected}?token="):
            raise BadAnswer(f"what was signed is not {name}")
        return url or expected

    def _signed_upload(self, name: str, address: str) -> SignedUrl:
        """Good for as long as the server makes it."""
        asked_at = datetime.now(UTC)
        url = self._call(lambda: self._sign_upload(name), min(SIGN_TIMEOUT_S, self._timeout_s))
        lives_s = max(upload_lifetime(url) - CLOCKS_DIFFER_S, 1)
        return SignedUrl(at(address, self._url, url), asked_at + timedelta(seconds=lives_s))

    def _sign_upload(self, name: str) -> str:
        options = CreateSignedUploadUrlOptions(upsert="true")  # also for who uploads once more
        url = self._objects.create_signed_upload_url(name, options)["signed_url"]
        expected = f"{self._url}/storage/v1/object/upload/sign/{self._bucket}/{name}?token="
        if not url.startswith(expected):
            raise BadAnswer(f"what was signed is not an upload of {name}")
        return url

    def _check(self) -> None:
        """Also finds out what etags are."""
        key, data = f"{CHECKS}{secrets.token_hex(8)}.png", b"fanfare"  # a bucket may be for images only
        name = self._name(key)
        self._put(name, data, "image/png")
        try:
            info = self._info(key, name)
            if not info.is_of(self._objects.download(name), etag_is_md5=False):
                raise BadAnswer("what was written is not what is read")
            self._md5_etags = info.has_md5_etag() and info.stored.etag == md5(data)
        finally:
            self._delete([name])

    def _are_etags_md5(self) -> bool:
        """Servers that encrypt have etags that only look as if."""
        if self._md5_etags is None:
            self._check()
        return bool(self._md5_etags)

    # -- inside ---------------------------------------------------------------------------------------

    def _call(self, verb: Callable[[], T], seconds: float | None = None, *, max_bytes: int = 0) -> T:
        until = time.monotonic() + (seconds or self._timeout_s)

        def call() -> T:
            with bounded(max(max_bytes, ANSWER_BYTES), until):
                return tried_again(verb, until)

        with translated(self._bucket):
            return run_within(until - time.monotonic(), call)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    @property
    def _objects(self) -> "SyncBucketProxy":
        """What it says that it returns is what should have come: look at it."""
        return self._client.storage.from_(self._bucket)


def _upload(signed: SignedUrl, content_type: str, max_bytes: int, expires_in: int) -> SignedUpload:
    headers = {"Content-Type": content_type, "Cache-Control": CACHE_CONTROL, "X-Metadata": NO_METADATA}
    expires_at = min(signed.expires_at, datetime.now(UTC) + timedelta(seconds=expires_in))
    return SignedUpload(url=signed.url, headers=headers, expires_at=expires_at, max_bytes=max_bytes)


def _portions(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]

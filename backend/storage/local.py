"""Storage as files under one root; the API serves and accepts them at signed URLs."""

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from backend.errors import InvalidKey, ObjectNotFound, ObjectTooLarge, StorageUnavailable
from backend.storage.base import ListedObject, SignedDownload, StoredObject, Unfinished
from backend.storage.draft import Draft, forget_abandoned
from backend.storage.folders import files_below
from backend.storage.keys import (
    CHECKS,
    check_content_type,
    check_key,
    check_prefix,
    content_type_of,
    is_key,
)
from backend.storage.signing import Permit, Signer, steady_expiry
from contract.messages import SignedUpload

log = logging.getLogger(__name__)

ROUTE = "/v1/files/"
DRAFTS = ".drafts"  # under the root: no key begins with a dot, so none can name a draft

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO}  # ENXIO: a socket is there


@dataclass(frozen=True)
class OpenFile:
    """One object, open for reading; it stays as it is even if it is replaced or deleted meanwhile."""

    file: BinaryIO
    meta: StoredObject
    modified: float  # Unix time

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        return os.pread(self.file.fileno(), length, offset)

    def close(self) -> None:
        """Gives the file back. May be called again."""
        self.file.close()


class LocalStorage:
    """Files under `root`, which is made at the first write."""

    name = "local"

    def __init__(self, root: Path, *, public_url: str, node_url: str, signer: Signer) -> None:
        self._root = Path(os.path.realpath(root))
        self._public_url = public_url.rstrip("/")
        self._node_url = node_url.rstrip("/")
        self._signer = signer
        self._tidied = False

    # -- the port -------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        public: bool = False,  # noqa: ARG002 - the route that serves it says so
    ) -> None:
        """See the port."""
        check_content_type(check_key(key), content_type)
        with self.draft() as draft:
            self.write_draft(draft, data)
            self.commit_draft(draft, key)

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See the port."""
        opened = self.open(key)
        try:
            if opened.meta.bytes > max_bytes:
                raise ObjectTooLarge
            with _reading():
                return opened.file.read(opened.meta.bytes)
        finally:
            opened.close()

    def stat(self, key: str) -> StoredObject:
        """See the port."""
        opened = self.open(key)
        opened.close()
        return opened.meta

    def delete(self, keys: Iterable[str]) -> None:
        """See the port. Folders that are left empty go too."""
        for place in [self._place(key) for key in keys]:
            try:
                with _reading():
                    place.unlink()
            except ObjectNotFound:
                pass
            self._prune(place.parent)

    def walk(self, prefix: str) -> Iterator[ListedObject]:
        """See the port. Links and drafts are no objects."""
        check_prefix(prefix)
        with _writing():  # a folder that isn't there holds nothing: whatever else goes wrong is no answer
            for key, found in files_below(self._root, prefix):
                if is_key(key):
                    modified = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield ListedObject(key, found.st_size, modified)

    def forget_unfinished(self, *, dry_run: bool = False) -> Unfinished:
        """See the port. Here it is the drafts of processes that died over them."""
        with _writing():
            sizes = forget_abandoned(self._root / DRAFTS, dry_run=dry_run)
        return Unfinished(len(sizes), sum(sizes))

    def download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See the port. The same URL for a while, so that browsers' caches can work."""
        return self._download_url(self._public_url, key, expires_in)

    def download_urls(self, keys: Iterable[str], *, expires_in: int) -> list[SignedDownload]:
        """See the port."""
        return [self.download_url(key, expires_in=expires_in) for key in keys]

    def node_download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """See the port."""
        return self._download_url(self._node_url, key, expires_in)

    def upload_url(self, key: str, *, content_type: str, max_bytes: int, expires_in: int) -> SignedUpload:
        """See the port. Content type and largest size are part of the signature."""
        return self._upload_url(self._node_url, key, content_type, max_bytes, expires_in)

    def client_upload_url(
        self, key: str, *, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        """See the port."""
        return self._upload_url(self._public_url, key, content_type, max_bytes, expires_in)

    def _upload_url(
        self, base: str, key: str, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        check_content_type(check_key(key), content_type)
        expires = int(time.time()) + expires_in
        permit = Permit("PUT", key, expires, content_type, max_bytes)
        query = {
            "expires": expires,
            "content_type": content_type,
            "max_bytes": max_bytes,
            "signature": self._signer.sign(permit),
        }
        return SignedUpload(
            url=f"{base}{ROUTE}{key}?{urlencode(query, safe='/')}",
            headers={"Content-Type": content_type},
            expires_at=datetime.fromtimestamp(expires, UTC),
            max_bytes=max_bytes,
        )

    def check(self) -> None:
        """See the port."""
        key, data = f"{CHECKS}{secrets.token_hex(8)}.txt", b"fanfare"
        self.put(key, data, "text/plain")
        try:
            if self.get(key, max_bytes=len(data)) != data:
                raise StorageUnavailable
        finally:
            self.delete([key])

    # -- for the route that serves the files ----------------------------------------------------------

    def verify(self, permit: Permit, signature: str) -> None:
        """Returns if the signature is ours and good. Raises as `Signer.verify`, and `InvalidKey`."""
        check_key(permit.key)
        self._signer.verify(permit, signature)

    def open(self, key: str) -> OpenFile:
        """The object, open for reading. Raises as `get`."""
        # Not blocking: somebody may have put a pipe there, which would wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with _reading():
            fd = os.open(self._place(key), flags)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise ObjectNotFound
        file = os.fdopen(fd, "rb")
        etag = f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"
        meta = StoredObject(key, found.st_size, content_type_of(key), etag)
        return OpenFile(file, meta, found.st_mtime)

    def draft(self) -> Draft:
        """An object in the making; `commit_draft` names it."""
        with _writing():
            if not self._tidied:
                self._tidied = True
                forget_abandoned(self._root / DRAFTS)
            return Draft(self._root / DRAFTS)

    def write_draft(self, draft: Draft, data: bytes) -> None:
        """Adds the bytes to the draft."""
        with _writing():
            draft.write(data)

    def commit_draft(self, draft: Draft, key: str) -> bool:
        """Makes the draft the object, whole, at once. Returns whether there was none before."""
        place = self._place(key)
        with _writing():
            is_new = not place.exists()
            try:
                draft.commit(place)
            except (NotADirectoryError, IsADirectoryError) as exc:
                # "a" can't be an object and the beginning of "a/b" at once
                raise InvalidKey("This key, or its beginning, is taken by others.") from exc
        return is_new

    # -- inside ---------------------------------------------------------------------------------------

    def _download_url(self, base: str, key: str, expires_in: int) -> SignedDownload:
        expires = steady_expiry(time.time(), expires_in)
        permit = Permit("GET", check_key(key), expires)
        url = f"{base}{ROUTE}{key}?expires={expires}&signature={self._signer.sign(permit)}"
        return SignedDownload(url, datetime.fromtimestamp(expires, UTC))

    def _place(self, key: str) -> Path:
        """The object's path. Raises `InvalidKey`, also where a link in the root leads out of it."""
        place = self._root / check_key(key)
        folder = os.path.realpath(place.parent)
        if not Path(folder).is_relative_to(self._root):
            log.error("a link below %s leads out of it, to %s: it isn't followed", self._root, folder)
            raise InvalidKey
        return place

    def _prune(self, folder: Path) -> None:
        """Removes the folder and those above it, up to the root, as far as they are empty."""
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already: either way nothing is left to do
                return
            folder = folder.parent


@contextmanager
def _reading() -> Iterator[None]:
    """Turns the file system's errors into the port's own."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _ABSENT:
            raise ObjectNotFound from exc
        raise _unavailable(exc) from exc


@contextmanager
def _writing() -> Iterator[None]:
    """The same, for an object that is being made."""
    try:
        yield
    except OSError as exc:
        raise _unavailable(exc) from exc


def _unavailable(exc: OSError) -> StorageUnavailable:
    log.error("the file storage doesn't work: %s", exc)
    return StorageUnavailable()

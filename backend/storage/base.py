"""The storage port: keys in, bytes and signed URLs out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contract.messages import SignedUpload


@dataclass(frozen=True)
class StoredObject:
    """What the store knows of one object, without its bytes."""

    key: str
    bytes: int
    content_type: str
    etag: str


@dataclass(frozen=True)
class ListedObject:
    """One object of a listing."""

    key: str
    bytes: int
    modified: datetime  # aware, UTC; by the store's clock


@dataclass(frozen=True)
class Unfinished:
    """What was begun to be stored, and never became an object."""

    count: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class SignedDownload:
    """A URL that whoever holds it may GET until it expires."""

    url: str
    expires_at: datetime  # aware, UTC


class Storage(Protocol):
    """Where objects are kept. Keys are relative paths of [A-Za-z0-9._-] segments.

    Every verb raises `StorageUnavailable` when the store can't be reached or refuses to work, and
    `InvalidKey` for a key that is not one. Vendor errors never leave the adapter; they are chained.
    """

    name: str

    def put(self, key: str, data: bytes, content_type: str, *, public: bool = False) -> None:
        """Stores the object whole or not at all; the same key again replaces it.

        `public`: shared caches (a CDN) may keep it too, for ever: it never changes under this key.
        """
        ...

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """The object's bytes. Raises `ObjectNotFound`, or `ObjectTooLarge` beyond `max_bytes`."""
        ...

    def stat(self, key: str) -> StoredObject:
        """What the store knows of the object. Raises `ObjectNotFound`."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes the objects; one that isn't there is no error."""
        ...

    def walk(self, prefix: str) -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, those under one folder together; read as it goes.

        What is stored or deleted meanwhile may be among them or not. Names that are no keys are passed over.
        Raises while it is read.
        """
        ...

    def forget_unfinished(self, *, dry_run: bool = False) -> Unfinished:
        """Removes what was begun a day ago or longer and never became an object; a dry run only counts."""
        ...

    def download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """A URL for clients, good for `expires_in` seconds. The object need not exist yet."""
        ...

    def download_urls(self, keys: Iterable[str], *, expires_in: int) -> list[SignedDownload]:
        """Those of many keys, in their order: at once, where the store has to be asked."""
        ...

    def node_download_url(self, key: str, *, expires_in: int) -> SignedDownload:
        """The same URL for nodes, which may see the store at another address than clients."""
        ...

    def upload_url(self, key: str, *, content_type: str, max_bytes: int, expires_in: int) -> SignedUpload:
        """A URL for nodes: one plain PUT of `content_type`, good for `expires_in` seconds."""
        ...

    def client_upload_url(
        self, key: str, *, content_type: str, max_bytes: int, expires_in: int
    ) -> SignedUpload:
        """The same for clients."""
        ...

    def check(self) -> None:
        """Returns if the store can be written and read now, else raises `StorageUnavailable`."""
        ...

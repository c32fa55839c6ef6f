"""What Supabase Storage says of objects, looked at before it is believed.

Where the answer is something else, what is raised is one of `supabase_errors.FAILURES`.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.storage.base import StoredObject
from backend.storage.keys import OTHER
from backend.storage.supabase_errors import BadAnswer

Entry = tuple[int, datetime] | None  # of a listing: size and age; None: a folder

_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Info:
    """What is known of one object."""

    stored: StoredObject
    sha256: str | None  # of those that we put

    @classmethod
    def read(cls, key: str, answer: dict[str, Any]) -> "Info":
        """From the answer to a question for the object."""
        size, etag = answer["size"], answer["etag"] or answer["version"]
        if not isinstance(size, int) or size < 0 or not isinstance(etag, str):
            raise BadAnswer(f"no size or no etag is known of {key}")
        stored = StoredObject(key, size, answer["content_type"] or OTHER, etag.strip('"'))
        return cls(stored, (answer.get("metadata") or {}).get("sha256"))

    def is_of(self, data: bytes, *, etag_is_md5: bool) -> bool:
        """Whether these are its bytes, as far as can be told."""
        if len(data) != self.stored.bytes:
            return False
        if self.sha256:
            return hashlib.sha256(data).hexdigest() == self.sha256
        return not (etag_is_md5 and self.has_md5_etag()) or self.stored.etag == md5(data)

    def has_md5_etag(self) -> bool:
        """It looks like one; uploads in parts and some servers have others."""
        return _MD5.fullmatch(self.stored.etag) is not None


def read_page(answer: object) -> list[tuple[str, Entry]]:
    """The entries of a part of a listing, with their names."""
    if not isinstance(answer, list):
        raise BadAnswer("the answer to a listing is no list")
    return [(one["name"], _read_entry(one)) for one in answer]


def _read_entry(entry: dict[str, Any]) -> Entry:
    if entry["id"] is None:
        return None
    modified = datetime.fromisoformat(entry["updated_at"] or entry["created_at"])
    return int((entry["metadata"] or {}).get("size", 0)), modified.astimezone(UTC)


def md5(data: bytes) -> str:
    """In hexadecimal; not for security."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

"""Signed file URLs: who holds one may do one thing with one key until it expires."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass

from backend.errors import SignatureExpired, SignatureInvalid

_dump = json.JSONEncoder(separators=(",", ":")).encode  # made once: `json.dumps` makes one each time


@dataclass(frozen=True)
class Permit:
    """What a signature allows. Every field is signed."""

    method: str  # GET (which covers HEAD) or PUT
    key: str
    expires: int  # Unix time, in seconds
    content_type: str = ""  # of an upload
    max_bytes: int = 0  # of an upload

    def to_bytes(self) -> bytes:
        """Unambiguous: no two permits give the same bytes."""
        return _dump([self.method, self.key, self.expires, self.content_type, self.max_bytes]).encode()


class Signer:
    """HMAC-SHA256 with a key of its own, derived from the secret, which has other uses too."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"fanfare file urls v1", hashlib.sha256)

    def sign(self, permit: Permit) -> str:
        """The permit's signature: 43 characters that need no quoting in a URL."""
        digest = hmac.digest(self._key, permit.to_bytes(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def verify(self, permit: Permit, signature: str) -> None:
        """Returns if the permit was signed here and is still good.

        Raises `SignatureInvalid`, or `SignatureExpired` for one that was good once.
        """
        if not hmac.compare_digest(self.sign(permit).encode(), signature.encode()):
            raise SignatureInvalid
        if permit.expires <= time.time():
            raise SignatureExpired


def steady_expiry(now: float, expires_in: int) -> int:
    """A Unix time at least `expires_in` seconds away, and at most half as much again.

    It stays the same for half of `expires_in`, so that the URL does too and browsers' caches can work.
    """
    window = max(expires_in // 2, 1)
    earliest = int(now) + 1 + expires_in
    return -(-earliest // window) * window

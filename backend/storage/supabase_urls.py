"""Signed URLs of Supabase Storage, which only it can sign: asked for together, and kept for a while."""

import base64
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

KEPT = 32_768  # URLs
UPLOAD_S = 2 * 3600  # what the server makes of it where it isn't told otherwise
CLOCKS_DIFFER_S = 60  # a node must not try what the server holds for over


@dataclass(frozen=True)
class SignedUrl:
    """Of a download or of an upload."""

    url: str
    expires_at: datetime  # aware, UTC


class SteadyUrls:
    """Those that were signed a short while ago: the same again, so that browsers' caches can work."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, SignedUrl] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, names: Iterable[str], expires_in: int) -> dict[str, SignedUrl]:
        """Those of them that are good for so many more seconds, by name."""
        needed = datetime.now(UTC) + timedelta(seconds=expires_in)
        with self._lock:
            found = {name: self._kept[name] for name in names if name in self._kept}
        return {name: signed for name, signed in found.items() if needed <= signed.expires_at}

    def keep(self, signed: dict[str, SignedUrl]) -> None:
        """Remembers them, and forgets the oldest where there are too many."""
        with self._lock:
            for name, one in signed.items():
                self._kept[name] = one
                self._kept.move_to_end(name)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def at(address: str, own: str, url: str) -> str:
    """The URL as it is seen from elsewhere: what is signed is the path alone."""
    return address + url.removeprefix(own) if url.startswith(own) else url


def upload_lifetime(url: str) -> int:
    """Seconds for which the server takes an upload at this URL; its token says so."""
    (token,) = parse_qs(urlsplit(url).query).get("token", [""])
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return max(int(claims["exp"]) - int(claims["iat"]), 1)
    except (IndexError, KeyError, TypeError, ValueError):
        return UPLOAD_S

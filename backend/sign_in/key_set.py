"""The public keys that a project signs its access tokens with: fetched from its JWKS, kept, renewed in time.

Requests find their key in what is kept. A task of its own renews it, whether anybody asks or not; one fetch
more is made where a token names a key that isn't there: it may have been rotated in since. Whoever makes up
names of keys causes no more than one fetch in COOLDOWN_S. While the keys can't be fetched, those that are
kept go on working.
"""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

import httpx
import jwt

from backend.errors import SignInUnavailable

RENEW_S = 300.0  # as long a key lives on that the project has revoked
RETRY_S = 30.0  # after a failure
COOLDOWN_S = 10.0
TIMEOUT_S = 5.0  # for one fetch, from look-up to last byte
MAX_BYTES = 64 * 1024
MOST_KEYS = 50
RSA_BITS = range(2048, 8192 + 1)

log = logging.getLogger(__name__)


class KeySet:
    """The keys at one URL. Belongs to the event loop that it is started in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._is_known = False  # whether the last fetch was a success
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to fetch. To be called in the event loop."""
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},  # what is read is bounded
        )
        self._renewing = asyncio.create_task(self._keep_renewing())

    async def stop(self) -> None:
        """Ends what it has begun."""
        for task in (self._renewing, self._fetching):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._client.aclose()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this name; None: there is none. Raises `SignInUnavailable` if that can't be known."""
        if kid not in self._keys and time.monotonic() - self._tried_at >= COOLDOWN_S:
            await self._fetch_once()
        key = self._keys.get(kid)
        if key is None and not self._is_known:
            raise SignInUnavailable
        return key

    async def _keep_renewing(self) -> None:
        while True:
            await self._fetch_once()
            await asyncio.sleep(RENEW_S if self._is_known else RETRY_S)

    async def _fetch_once(self) -> None:
        """One fetch for all who ask meanwhile; who goes away doesn't end it for the others."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                keys = parse(await _read(self._client, self._url))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnusableKeys) as exc:
            self._note(is_known=False, text=f"can't be fetched: {type(exc).__name__} {exc}")
        else:
            self._keys = keys
            self._note(is_known=True, text=f"are known: {len(keys)}")
        finally:
            self._tried_at = time.monotonic()
            self._fetching = None

    def _note(self, *, is_known: bool, text: str) -> None:
        """Logs what has changed: an outage is told once, not with every try."""
        if is_known != self._is_known or self._tried_at == float("-inf"):
            log.log(logging.INFO if is_known else logging.WARNING, "keys of %s %s", self._url, text)
        self._is_known = is_known


class UnusableKeys(Exception):
    """What was answered is no set of keys."""


async def _read(client: httpx.AsyncClient, url: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", url) as answer:
        if answer.status_code != httpx.codes.OK:
            raise UnusableKeys(f"status {answer.status_code}")
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise UnusableKeys(f"more than {MAX_BYTES} bytes")
    return bytes(body)


def parse(body: bytes) -> dict[str, jwt.PyJWK]:
    """The keys that tokens may be signed with, by their names. Raises `UnusableKeys`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UnusableKeys("not JSON") from exc
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise UnusableKeys("no list of keys")
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries[:MOST_KEYS]:
        key = _public_key(entry) if isinstance(entry, dict) else None
        if key is not None:
            keys.setdefault(entry["kid"], key)
    if entries and not keys:
        raise UnusableKeys("none of its keys can be used")
    return keys


# By key type: the one algorithm that such a key is good for, and what its public half is made of.
_KINDS = {"EC": ("ES256", ("kty", "crv", "x", "y")), "RSA": ("RS256", ("kty", "n", "e"))}


def _public_key(entry: dict[str, Any]) -> jwt.PyJWK | None:
    """With its algorithm, in which no token has a say. None: it is of no use here."""
    algorithm, members = _KINDS.get(str(entry.get("kty")), ("", ()))
    public = {name: entry.get(name) for name in members}
    is_whole = public and all(isinstance(value, str) for value in (*public.values(), entry.get("kid")))
    is_for_us = (entry.get("use") or "sig", entry.get("alg") or algorithm) == ("sig", algorithm)
    if not is_whole or not is_for_us or public.get("crv", "P-256") != "P-256":
        return None
    try:
        key = jwt.PyJWK.from_dict(public, algorithm)
    except (jwt.PyJWTError, ValueError):
        return None
    return None if algorithm == "RS256" and key.key.key_size not in RSA_BITS else key

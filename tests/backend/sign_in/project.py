"""The sign-in of a Supabase project, as others see it: it signs access tokens and tells its public keys."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

SECRET = "the-secret-of-the-tests-is-longer-than-32-characters"
ELSEWHERE = "/elsewhere"  # the same keys, where nobody should look for them
JWKS_PATH = "/auth/v1/.well-known/jwks.json"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        project = self.server.project
        if self.path == ELSEWHERE:
            self.say(json.dumps(project.jwks()).encode())
            return
        assert self.path == JWKS_PATH
        project.fetches += 1
        try:
            project.answer(self)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


Answer = Callable[[_Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    project: "Project"


class Project:
    """Keys, a server that tells their public halves, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {}
        self.newest = ""
        self.fetches = 0
        self.sent_bytes = 0  # of what is huge
        self.answer: Answer = self._tell_keys
        self._port = 0
        self.rotate()
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.project = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens there until it is opened again."""
        self._server.shutdown()
        self._server.server_close()

    def well(self) -> None:
        """It answers as it should."""
        self.answer = self._tell_keys

    def rotate(self, key: PrivateKey | None = None) -> str:
        """A new key signs from now on; the old ones are told still. Its name."""
        self.newest = str(uuid4())
        self.keys[self.newest] = key or ec.generate_private_key(ec.SECP256R1())
        return self.newest

    def jwks(self) -> dict[str, Any]:
        return {"keys": [_public(kid, key) for kid, key in self.keys.items()]}

    def claims(self, user: UUID, **changed: Any) -> dict[str, Any]:
        """As Supabase makes them; None: this one is left out."""
        now = int(time.time())
        claims = {
            "iss": f"{self.url}/auth/v1", "aud": "authenticated", "sub": str(user), "role": "authenticated",
            "iat": now, "exp": now + 3600, "aal": "aal1", "session_id": str(uuid4()), "is_anonymous": False,
            "email": "ann@example.com", "phone": "", "app_metadata": {"provider": "email"},
        } | changed  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, user: UUID, **changed: Any) -> str:
        """An access token of the user, signed with the newest key."""
        return self.sign(self.claims(user, **changed), self.newest)

    def sign(self, claims: dict[str, Any], kid: str) -> str:
        key = self.keys[kid]
        return jwt.encode(claims, key, _algorithm(key), {"kid": kid})

    def _tell_keys(self, handler: _Handler) -> None:
        handler.say(json.dumps(self.jwks()).encode())


def _algorithm(key: PrivateKey) -> str:
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"


def _public(kid: str, key: PrivateKey) -> dict[str, Any]:
    public = (
        ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    )
    return public | {"kid": kid, "alg": _algorithm(key), "use": "sig", "key_ops": ["verify"], "ext": True}


@contextmanager
def project() -> Iterator[Project]:
    """One that is there for the length of the block."""
    made = Project()
    try:
        yield made
    finally:
        made.close()


# -- how it fails -----------------------------------------------------------------------------------------


def saying(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Something else than its keys."""
    return lambda handler: handler.say(body, status, **headers)


def slow(handler: _Handler) -> None:
    """Takes longer than anybody should wait."""
    time.sleep(6)


def dripping(handler: _Handler) -> None:
    """Never silent for long, and never done."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(120):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def huge(handler: _Handler) -> None:
    """More than any set of keys."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(64):
        handler.wfile.write(b'{"keys": [' + b" " * 2**20)
        handler.server.project.sent_bytes += 2**20

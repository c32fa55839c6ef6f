"""Users of a Supabase project beside API keys: who is let in, who is not, and what is answered meanwhile.

The API, its HTTP, the tokens and the server that tells the project's keys are real.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from backend import keys
from backend.sign_in import key_set, tokens
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.sign_in.project import (
    ELSEWHERE,
    SECRET,
    Answer,
    Project,
    dripping,
    huge,
    project,
    saying,
    slow,
)

ANN, BOB = UUID("5b1c9a52-6f0e-4b8e-9d35-0e6a4a2f7c11"), UUID("c0ffee00-1111-4222-8333-444455556666")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Who is let in depends on no database: one kind will do."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def there() -> Iterator[Project]:
    """The users' project."""
    with project() as made:
        yield made


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Little of it. Where keys are not there, they are looked for again at once."""
    monkeypatch.setattr(key_set, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(key_set, "COOLDOWN_S", 0.0)
    return monkeypatch


@pytest.fixture
def server(start_server: StartServer, there: Project, patience: pytest.MonkeyPatch) -> Server:
    """It takes tokens of the project, by its keys and by its secret."""
    server = start_server(supabase_sign_in=True, supabase_url=f"{there.url}/", supabase_jwt_secret=SECRET)
    announce(server)
    return server


def ask(server: Server, token: str | None, path: str = "/v1/jobs") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return httpx.get(server.url + path, headers=headers, timeout=20)


def status_and_code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


def by_secret(claims: dict[str, Any], secret: str = SECRET) -> str:
    return jwt.encode(claims, secret, "HS256")


def with_header(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that no library would make. Without a secret it has no signature."""
    signed = b".".join(_part(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.new(secret, signed, hashlib.sha256).digest() if secret is not None else b""
    return (signed + b"." + _part(signature)).decode()


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


# -- who is let in ----------------------------------------------------------------------------------------


def test_users_own_what_they_make(server: Server, there: Project) -> None:
    # Given two users, one of them by two kinds of tokens, and a key
    with server.resources.db.session_scope() as session:
        key = keys.create(session, "a server")[1]
    ann, bob, ann_again = there.token(ANN), there.token(BOB), by_secret(there.claims(ANN))
    # When one of them makes something
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ann}"}) as client:
        made = client.post("/v1/thumbnails", json={"message": "a fox"})
    assert made.status_code == 202
    job = f"/v1/jobs/{made.json()['task_id']}"
    # Then it is hers, whatever her token is signed with, and nobody else's
    assert [ask(server, who, job).status_code for who in (ann, ann_again, bob, key)] == [200, 200, 404, 404]
    assert [len(ask(server, who).json()["results"]) for who in (ann, ann_again, bob, key)] == [1, 1, 0, 0]
    secrets = {ask(server, who, "/v1/webhooks/secret").json()["secret"] for who in (ann, bob, key)}
    assert len(secrets) == 3
    with server.resources.db.read_scope() as session:
        owner = session.connection().exec_driver_sql("SELECT owner FROM jobs").scalar_one()
    assert owner == f"user:{ANN}"


def test_limits_are_each_users_own(start_server: StartServer, there: Project) -> None:
    server = start_server(
        supabase_sign_in=True, supabase_url=there.url, max_requests_per_minute=1, max_open_images_per_owner=4
    )
    announce(server)

    def make(user: UUID, count: int) -> str | None:
        headers = {"Authorization": f"Bearer {there.token(user)}"}
        body = {"message": "a fox", "count": count}
        return status_and_code(httpx.post(f"{server.url}/v1/thumbnails", json=body, headers=headers))[1]

    assert [make(ANN, 2), make(ANN, 2), make(BOB, 4)] == [None, "rate_limited", None]
    assert make(uuid4(), 5) == "quota"


def test_keys_are_taken_as_before(server: Server) -> None:
    with server.resources.db.session_scope() as session:
        key = keys.create(session, "a server")[1]
    assert ask(server, key).status_code == 200
    for wrong in (key + "x", "ff_1.2.3", "ff_", "nonsense", "a.b", "a.b.c.d.e"):
        assert status_and_code(ask(server, wrong)) == (401, "unauthorized"), wrong


def test_with_sign_in_nobody_is_anonymous(start_server: StartServer, there: Project) -> None:
    # Given no key, and a server that would take anybody else
    server = start_server(supabase_sign_in=True, supabase_url=there.url, api_anonymous=True)
    answer = ask(server, None)
    assert status_and_code(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert ask(server, there.token(ANN)).status_code == 200


def test_without_sign_in_a_token_is_nothing(start_server: StartServer, there: Project) -> None:
    server = start_server(supabase_url=there.url, supabase_jwt_secret=SECRET)
    for token in (there.token(ANN), by_secret(there.claims(ANN))):
        assert status_and_code(ask(server, token)) == (401, "unauthorized")
    assert there.fetches == 0


def test_users_read_no_metrics(server: Server, there: Project) -> None:
    with server.resources.db.session_scope() as session:
        key = keys.create(session, "a server")[1]
    assert [ask(server, who, "/metrics").status_code for who in (there.token(ANN), key)] == [401, 200]


# -- who is not -------------------------------------------------------------------------------------------


def test_claims_must_be_those_of_a_user(server: Server, there: Project) -> None:
    now = int(time.time())
    refused: list[tuple[dict[str, Any], str]] = [
        ({"exp": now - 60}, "token_expired"),
        ({"exp": None}, "invalid_token"),
        ({"exp": "soon"}, "invalid_token"),
        ({"exp": 1e999}, "invalid_token"),
        ({"nbf": now + 600}, "invalid_token"),
        ({"iat": now + 600}, "invalid_token"),
        ({"sub": None}, "invalid_token"),
        ({"sub": 5}, "invalid_token"),
        ({"sub": "local"}, "invalid_token"),
        ({"aud": None}, "invalid_token"),
        ({"aud": "anon"}, "invalid_token"),
        ({"aud": ["other"]}, "invalid_token"),
        ({"iss": None}, "invalid_token"),
        ({"iss": "https://elsewhere.supabase.co/auth/v1"}, "invalid_token"),
        ({"iss": "supabase"}, "invalid_token"),
        ({"role": None}, "invalid_token"),
        ({"role": "anon"}, "invalid_token"),
        ({"role": "service_role"}, "invalid_token"),
        ({"role": ["authenticated"]}, "invalid_token"),
        ({"is_anonymous": True}, "invalid_token"),
        ({"is_anonymous": "no"}, "invalid_token"),
    ]
    taken: list[dict[str, Any]] = [
        {},
        {"aud": ["authenticated", "other"]},
        {"exp": now - 5},  # clocks differ
        {"is_anonymous": None},
        {"sub": str(ANN).upper()},
    ]
    for sign in (by_secret, lambda claims: there.sign(claims, there.newest)):
        for changed, code in refused:
            answer = ask(server, sign(there.claims(ANN, **changed)))
            assert status_and_code(answer) == (401, code), changed
            check(answer, code)
        for changed in taken:
            assert ask(server, sign(there.claims(ANN, **changed))).status_code == 200, changed


def check(answer: httpx.Response, code: str) -> None:
    assert status_and_code(answer) == (401, code)
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_signature_can_not_be_made_up(server: Server, there: Project) -> None:
    claims, kid = there.claims(ANN), there.newest
    key = there.keys[kid]
    rsa_kid = there.rotate(rsa.generate_private_key(65537, 2048))
    public = [
        one.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for one in there.keys.values()
    ]
    genuine = there.sign(claims, kid)
    head, body, signature = genuine.split(".")
    other = _part(json.dumps(claims | {"sub": str(BOB)}).encode()).decode()
    forged = {
        "no algorithm": with_header({"alg": "none", "typ": "JWT"}, claims),
        "none, with a key's name": with_header({"alg": "none", "kid": kid}, claims),
        "None": with_header({"alg": "None"}, claims),
        "no alg": with_header({"kid": kid}, claims),
        "alg is a list": with_header({"alg": ["HS256"], "kid": kid}, claims),
        "alg is an object": with_header({"alg": {"HS256": 1}, "kid": kid}, claims),
        "alg is null": with_header({"alg": None, "kid": kid}, claims),
        "the public EC key as a secret": with_header({"alg": "HS256", "kid": kid}, claims, public[0]),
        "the public RSA key as a secret": with_header({"alg": "HS256", "kid": rsa_kid}, claims, public[1]),
        "an empty secret": with_header({"alg": "HS256"}, claims, b""),
        "another secret": by_secret(claims, SECRET + "!"),
        "HS384 with the secret": jwt.encode(claims, SECRET, "HS384"),
        "HS512 with the secret": jwt.encode(claims, SECRET + SECRET, "HS512"),
        "another key under its name": jwt.encode(
            claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": kid}
        ),
        "a key that it brings along": jwt.encode(
            claims, ec.generate_private_key(ec.SECP256R1()), "ES256",
            {"kid": kid, "jwk": there.jwks()["keys"][0], "jku": f"{there.url}/jwks", "x5u": there.url},
        ),
        "RS256 with the name of an EC key": jwt.encode(claims, there.keys[rsa_kid], "RS256", {"kid": kid}),
        "PS256 with the RSA key": jwt.encode(claims, there.keys[rsa_kid], "PS256", {"kid": rsa_kid}),
        "no name": jwt.encode(claims, key, "ES256"),
        "its name is a number": with_header({"alg": "ES256", "kid": 5}, claims),
        "its name is a path": jwt.encode(claims, key, "ES256", {"kid": "../../etc/passwd"}),
        "something critical": jwt.encode(claims, key, "ES256", {"kid": kid, "crit": ["exp"], "exp": 1}),
        "detached": with_header({"alg": "HS256", "b64": False, "crit": ["b64"]}, claims, SECRET.encode()),
        "no signature": f"{head}.{body}.",
        "a changed body": f"{head}.{other}.{signature}",
        "a cut signature": genuine[:-4],
        "more after it": genuine + "AAAA",
        "not base64": f"{head}.{body}.!!!!",
        "nothing at all": "..",
        "a body that is no object": jwt.api_jws.encode(b"[1]", key, "ES256", {"kid": kid}),
        "a body that is no JSON": jwt.api_jws.encode(b"{", key, "ES256", {"kid": kid}),
        "nested deeply": with_header({"alg": "ES256"}, {}).replace(
            "e30", _part(b"[" * 5000 + b"]" * 5000).decode()[:9000]
        ),
        "long": there.sign(claims | {"user_metadata": {"about": "x" * 17_000}}, kid),
    }  # fmt: skip
    for what, token in forged.items():
        answer = ask(server, token)
        assert status_and_code(answer) == (401, "invalid_token"), what
        # and nobody learns how near he was
        if what != "long":
            assert answer.json()["detail"] == "This access token is not valid here.", what
    assert ask(server, genuine).status_code == 200
    assert ask(server, there.sign(claims, rsa_kid)).status_code == 200


def test_without_a_secret_none_is_taken(start_server: StartServer, there: Project) -> None:
    server = start_server(supabase_sign_in=True, supabase_url=there.url)
    for token in (by_secret(there.claims(ANN)), with_header({"alg": "HS256"}, there.claims(ANN), b"")):
        assert status_and_code(ask(server, token)) == (401, "invalid_token")
    assert ask(server, there.token(ANN)).status_code == 200


def test_what_is_asked_of_tokens_is_by_setting(start_server: StartServer, there: Project) -> None:
    server = start_server(
        supabase_sign_in=True, supabase_url=there.url, supabase_jwt_issuer="https://shop.example/auth/v1",
        supabase_jwt_audience="shop", supabase_anonymous_users=True,
    )  # fmt: skip
    good = {"iss": "https://shop.example/auth/v1", "aud": "shop", "is_anonymous": True}
    assert ask(server, there.token(ANN, **good)).status_code == 200
    for wrong in ({"iss": f"{there.url}/auth/v1"}, {"aud": "authenticated"}, {"role": "anon"}):
        check(ask(server, there.token(ANN, **(good | wrong))), "invalid_token")


def test_a_stream_outlives_its_token(server: Server, there: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stream that was opened with a token that is about to expire
    monkeypatch.setattr(tokens, "LEEWAY_S", 0)
    token, later = there.token(ANN, exp=int(time.time()) + 3), there.token(ANN)
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {later}"}) as client:
        job = f"/v1/jobs/{client.post('/v1/thumbnails', json={'message': 'a fox'}).json()['task_id']}"
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.stream("GET", f"{server.url}{job}/events", headers=headers, timeout=20) as stream:
            assert stream.status_code == 200
            # When it has expired
            while ask(server, token).status_code == 200:
                time.sleep(0.2)
            check(ask(server, token, f"{job}/events"), "token_expired")
            # Then the stream goes on to the end of its job
            client.post(f"{job}/cancel").raise_for_status()
            assert "canceled" in stream.read().decode()


# -- the project's keys -----------------------------------------------------------------------------------


def test_a_key_that_is_rotated_in_is_found(server: Server, there: Project) -> None:
    before = there.token(ANN)
    assert ask(server, before).status_code == 200
    there.rotate()
    assert [ask(server, token).status_code for token in (there.token(ANN), before)] == [200, 200]


def test_a_key_that_is_revoked_is_forgotten(
    start_server: StartServer, there: Project, patience: pytest.MonkeyPatch
) -> None:
    # Given a server that looks often
    for name in ("RENEW_S", "RETRY_S"):
        patience.setattr(key_set, name, 0.1)
    server = start_server(supabase_sign_in=True, supabase_url=there.url)
    old = there.newest
    token = there.token(ANN)
    assert ask(server, token).status_code == 200
    # When the key is taken back, then its tokens are worth nothing soon, without anybody asking for another
    there.rotate()
    del there.keys[old]
    deadline = time.monotonic() + 60
    while (answer := ask(server, token)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check(answer, "invalid_token")


def test_names_of_keys_that_are_made_up_cause_no_flood(
    start_server: StartServer, there: Project, patience: pytest.MonkeyPatch
) -> None:
    # Given keys that were just fetched
    patience.setattr(key_set, "COOLDOWN_S", 60.0)
    server = start_server(supabase_sign_in=True, supabase_url=there.url)
    assert ask(server, there.token(ANN)).status_code == 200
    # When somebody makes up hundreds
    with httpx.Client(base_url=server.url) as client:
        for _ in range(200):
            token = jwt.encode({}, there.keys[there.newest], "ES256", {"kid": str(uuid4())})
            answer = client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
    # Then nobody has asked the project, and users are let in
    assert there.fetches == 1
    assert ask(server, there.token(ANN)).status_code == 200


@pytest.mark.parametrize(
    "answer",
    [
        saying(b"", 500),
        saying(b"<html>Sorry</html>"),
        saying(b"<html>Sorry</html>", 503),
        saying(b""),
        saying(b'{"keys": ['),
        saying(b"[]"),
        saying(b"null"),
        saying(b'{"message": "no API key found"}'),
        saying(b'{"keys": {}}'),
        saying(b'{"keys": [1, "two", null, []]}'),
        saying(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}]}'),
        saying(b'{"keys": [{"kty": "EC", "crv": "P-256", "x": 1, "y": [], "kid": "1"}]}'),
        saying(b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "1"}]}'),
        saying(b"\xff\xfe\x00"),
        saying(b"[" * 60_000),
        saying(b"", 302, Location=ELSEWHERE),
        slow,
        dripping,
        huge,
    ],
)
def test_keys_that_can_not_be_fetched_are_our_trouble(
    start_server: StartServer, there: Project, patience: pytest.MonkeyPatch, answer: Answer
) -> None:
    # Given a project that answers anything but its keys, from the beginning
    there.answer = answer
    server = start_server(supabase_sign_in=True, supabase_url=there.url, supabase_jwt_secret=SECRET)
    # Then who comes with a token learns that it is not its fault, and soon
    began = time.monotonic()
    refused = ask(server, there.token(ANN))
    assert status_and_code(refused) == (503, "sign_in_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert time.monotonic() - began < 2.5
    assert there.sent_bytes < 16 * 2**20
    # And tokens that need none of its keys are taken, or refused, as ever
    assert ask(server, by_secret(there.claims(ANN))).status_code == 200
    assert ask(server, by_secret(there.claims(ANN, role="anon"))).status_code == 401
    assert ask(server, with_header({"alg": "none"}, there.claims(ANN))).status_code == 401
    # When it is well again, then so is everything
    there.well()
    assert ask(server, there.token(ANN)).status_code == 200


def test_keys_that_are_known_outlive_an_outage(server: Server, there: Project) -> None:
    # Given a project that goes away once its keys are known
    known = there.token(ANN)
    assert ask(server, known).status_code == 200
    there.close()
    # Then tokens by these are taken; of others nobody can know
    assert ask(server, known).status_code == 200
    there.rotate()
    assert status_and_code(ask(server, there.token(ANN))) == (503, "sign_in_unavailable")
    assert ask(server, known).status_code == 200
    there.open()
    assert ask(server, there.token(ANN)).status_code == 200


def test_a_project_that_is_slow_holds_up_nobody_else(server: Server, there: Project) -> None:
    # Given many who wait for a project that doesn't answer
    known = there.token(ANN)
    assert ask(server, known).status_code == 200
    there.answer, before = slow, there.fetches
    there.rotate()
    waiting = there.token(BOB)

    async def main() -> list[float | int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:

            async def ask_with(token: str) -> int:
                answer = await client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
                return answer.status_code

            others = [asyncio.create_task(ask_with(waiting)) for _ in range(60)]
            await asyncio.sleep(0.1)
            began = time.monotonic()
            assert await ask_with(known) == 200
            took = time.monotonic() - began
            return [took, *await asyncio.gather(*others)]

    took, *statuses = asyncio.run(main())
    # Then others don't wait with them, and all of them caused a few fetches
    assert took < 0.4
    assert set(statuses) == {503}
    assert there.fetches - before < 10

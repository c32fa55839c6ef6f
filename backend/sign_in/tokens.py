"""Access tokens (JWTs) of a Supabase project: whether one is genuine, and which user it stands for."""

from typing import Any
from uuid import UUID

import jwt

from backend.errors import InvalidToken, TokenExpired
from backend.sign_in.key_set import KeySet

LEEWAY_S = 30  # clocks differ
MAX_CHARACTERS = 16 * 1024
SYMMETRIC = "HS256"
ASYMMETRIC = ("ES256", "RS256")
USERS = "authenticated"  # the role of users; `anon` and `service_role` are those of the project's own keys


class TokenVerifier:
    """Takes the tokens of one project. `secret` empty: none that are signed with a secret."""

    def __init__(
        self, *, keys: KeySet, secret: str, issuer: str, audience: str, takes_anonymous: bool
    ) -> None:
        self._keys = keys
        self._secret = secret
        self._issuer, self._audience = issuer, audience
        self._takes_anonymous = takes_anonymous

    def start(self) -> None:
        """Begins to fetch the project's keys. To be called in the event loop."""
        self._keys.start()

    async def stop(self) -> None:
        """Ends that."""
        await self._keys.stop()

    @staticmethod
    def looks_like_one(text: str) -> bool:
        """Whether it has three parts, with dots between them."""
        return text.count(".") == 2

    async def user_of(self, token: str) -> UUID:
        """The user's id. Raises `TokenExpired`, `InvalidToken` or `SignInUnavailable`."""
        if len(token) > MAX_CHARACTERS:
            raise InvalidToken
        try:
            key, algorithm = await self._key_for(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError as exc:
            raise TokenExpired from exc
        except jwt.PyJWTError as exc:
            raise InvalidToken from exc
        return self._user(claims)

    async def _key_for(self, header: dict[str, Any]) -> tuple[str | jwt.PyJWK, str]:
        """The key, and the algorithm that it is for: a token chooses among keys, never how one is used."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == SYMMETRIC and self._secret:
            return self._secret, SYMMETRIC
        if algorithm in ASYMMETRIC and isinstance(kid, str):
            key = await self._keys.find(kid)
            if key is not None:
                return key, key.algorithm_name
        raise InvalidToken

    def _user(self, claims: dict[str, Any]) -> UUID:
        """Its signature is good: it may be told what is wrong with it."""
        if claims.get("role") != USERS:
            raise InvalidToken("This is not the access token of a user: sign in, and send the session's.")
        if claims.get("is_anonymous", False) is not False and not self._takes_anonymous:
            raise InvalidToken("Anonymous users are not let in here: sign in with an account.")
        try:
            return UUID(claims["sub"])
        except ValueError as exc:
            raise InvalidToken from exc

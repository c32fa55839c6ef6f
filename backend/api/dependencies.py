"""What every route may ask for: the open resources, and who is asking."""

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend import keys
from backend.api.demand import DemandBoard
from backend.api.examples import TASK_ID
from backend.api.rate_limit import RateLimiter
from backend.errors import Unauthorized
from backend.resources import Resources

if TYPE_CHECKING:
    from backend.sign_in.tokens import TokenVerifier

ANONYMOUS = "local"  # the owner of jobs on a server without keys
USER = "user:"  # how owners begin who are users, as policies of the database know, too. A key's id is bare
KEYS_CACHE_S = 1.0

_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A key from `fanfare keys create`.")
_access_token = HTTPBearer(
    auto_error=False,
    scheme_name="AccessToken",
    bearerFormat="JWT",
    description="Of a user who is signed in with Supabase, where the server takes them.",
)


# Dependencies that wait for nothing are `async`: FastAPI takes each of the others to a thread of its own.
async def get_resources(request: Request) -> Resources:
    """The resources that the app was started with."""
    return cast("Resources", request.app.state.resources)


ResourcesDep = Annotated[Resources, Depends(get_resources)]
TaskId = Annotated[
    UUID, Path(description="The job's id, as its submission was answered.", examples=[TASK_ID])
]


async def get_demand(request: Request) -> DemandBoard:
    """What waits for which model."""
    return cast("DemandBoard", request.app.state.demand)


DemandDep = Annotated[DemandBoard, Depends(get_demand)]


class KeyGuard:
    """Knows whether keys are in use; asks the database at most once per KEYS_CACHE_S."""

    def __init__(self) -> None:
        self._in_use = False
        self._asked_at = float("-inf")

    @property
    def remembered(self) -> bool | None:
        """What `ask` would say; None: it would ask the database."""
        is_fresh = self._in_use or time.monotonic() - self._asked_at <= KEYS_CACHE_S
        return self._in_use if is_fresh else None

    def ask(self, resources: Resources) -> bool:
        """Once a key was made, nobody is anonymous any more, even if it was revoked."""
        if (known := self.remembered) is not None:
            return known
        with resources.db.read_scope() as session:
            self._in_use = keys.any_exist(session)
        self._asked_at = time.monotonic()
        return self._in_use


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
# The same header; asked for by its other name, so that the OpenAPI tells of both.
_Same = Annotated[HTTPAuthorizationCredentials | None, Depends(_access_token)]


async def get_owner(request: Request, resources: ResourcesDep, credentials: Credentials, _same: _Same) -> str:
    """Whose jobs this request may see. Raises `Unauthorized`; or `SignInUnavailable`: nobody can know."""
    return await identify(request, resources, credentials)


async def identify(
    request: Request, resources: Resources, credentials: HTTPAuthorizationCredentials | None
) -> str:
    """The same, for who takes other credentials as well."""
    sign_in = cast("TokenVerifier | None", request.app.state.sign_in)
    if credentials is None:
        return await _owner_without_credentials(request, resources, sign_in)
    text = credentials.credentials
    if sign_in is not None and not keys.looks_like_one(text) and sign_in.looks_like_one(text):
        # In the event loop: it takes less time than the way to another thread.
        return f"{USER}{await sign_in.user_of(text)}"
    return await run_in_threadpool(_owner_by_key, resources, text)


async def _owner_without_credentials(
    request: Request, resources: Resources, sign_in: "TokenVerifier | None"
) -> str:
    """Where keys or sign-in are in use, nobody is anonymous."""
    if sign_in is not None:
        raise Unauthorized("Send an API key, or the access token of a user: `Authorization: Bearer ...`.")
    guard = cast("KeyGuard", request.app.state.key_guard)
    in_use = guard.remembered
    if in_use is None:
        in_use = await run_in_threadpool(guard.ask, resources)
    if in_use:
        raise Unauthorized("Send an API key: `Authorization: Bearer ff_...`.")
    if not resources.settings.api_anonymous and not _is_local(request):
        raise Unauthorized("Without a key the API serves this machine only: `fanfare keys create NAME`.")
    return ANONYMOUS


def _owner_by_key(resources: Resources, text: str) -> str:
    with resources.db.read_scope() as session:
        key = keys.find(session, text)
    if key is None:
        raise Unauthorized("This API key is not known, or was revoked.")
    return str(key.id)


OwnerDep = Annotated[str, Depends(get_owner)]


async def get_rated_owner(request: Request, owner: OwnerDep) -> str:
    """The owner of a request that asks for work. Raises `RateLimited`."""
    limiter = cast("RateLimiter", request.app.state.rate_limiter)
    if limiter.limits:
        await run_in_threadpool(limiter.check, owner)
    return owner


RatedOwnerDep = Annotated[str, Depends(get_rated_owner)]


def _is_local(request: Request) -> bool:
    """Whether the request comes from this very machine."""
    if request.client is None:
        return True  # a Unix socket
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False

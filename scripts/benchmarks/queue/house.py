"""What the ways run in: one Redis, one Postgres, a folder for files, and the processes of each way."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from scripts.benchmarks import processes
from scripts.benchmarks.processes import DidNotWork, Process
from tests.services import PostgresServer, RedisServer, find_postgres, find_redis, free_port, service_folder

LONGEST_S = 300.0


@dataclass(frozen=True)
class Traffic:
    """What Redis has done so far."""

    commands: int
    bytes: int  # in and out

    def since(self, before: "Traffic") -> "Traffic":
        return Traffic(self.commands - before.commands, self.bytes - before.bytes)


@dataclass
class House:
    """Services, and what is started beside them."""

    folder: Path
    broker: RedisServer
    postgres: PostgresServer
    store: "redis.Redis"
    opened: contextlib.ExitStack  # is left before the house is
    started: list[Process] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> Process:
        """One process more; it ends with the house."""
        log = self.folder / f"process-{len(self.started)}.log"
        self.started.append(processes.start(command, environment, log))
        return self.started[-1]

    def ours(self, number: int) -> dict[str, str]:
        """The environment of our own processes: Redis' database of this number, a new one of Postgres."""
        port = free_port()
        return {
            "FANFARE_HOME": str(self.folder / "home"), "FANFARE_BROKER_URL": self.broker.url(number),
            "FANFARE_DATABASE_URL": self.postgres.url(self.postgres.create_database()),
            "FANFARE_STORAGE_URL": (self.folder / "ours").as_uri(), "FANFARE_API_PORT": str(port),
            "FANFARE_PUBLIC_URL": f"http://127.0.0.1:{port}", "FANFARE_MODELS": "nothing",
            "FANFARE_DEFAULT_MODEL": "nothing", "FANFARE_SECRET_KEY": "0" * 32,
            "FANFARE_LOG_LEVEL": "WARNING",
            "TMPDIR": str(self.folder), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip

    def end(self) -> None:
        """Ends what was started, the last first."""
        for process in reversed(self.started):
            process.end()

    def traffic(self) -> Traffic:
        """Until now, our own questions included."""
        info = self.store.info("stats")
        return Traffic(
            info["total_commands_processed"], info["total_net_input_bytes"] + info["total_net_output_bytes"]
        )

    def until(self, holds: Callable[[], object], *needed: Process, pause_s: float = 0.02) -> None:
        """Returns when it holds. Raises `DidNotWork`."""
        end = time.monotonic() + LONGEST_S
        while not holds():
            for process in needed:
                process.must_live()
            if time.monotonic() > end:
                raise DidNotWork("\n".join(process.said() for process in needed))
            time.sleep(pause_s)


@contextlib.contextmanager
def house() -> Iterator[House]:
    """For the length of the block; what was started in it ends with it."""
    binary, binaries = find_redis(), find_postgres()
    if binary is None or binaries is None:
        raise DidNotWork("No Redis or no Postgres: ./scripts/setup --dev brings both")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(service_folder("bench"))
        server = RedisServer(binary, stack.enter_context(service_folder("bench-redis")))
        stack.enter_context(server.service.running())
        postgres = PostgresServer(binaries, stack.enter_context(service_folder("bench-postgres")))
        stack.enter_context(postgres.service.running())
        store = stack.enter_context(server.client())
        made = House(folder, server, postgres, store, stack.enter_context(contextlib.ExitStack()))
        stack.callback(made.end)
        yield made


def own_cpu_seconds() -> float:
    """Of this process."""
    return sum(os.times()[:2])

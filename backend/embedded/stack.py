"""The whole stack: which parts there are, in which order they come and go.

What is slow to import is imported where it is used, so that the parts start at once.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

import redis

from backend import serving
from backend.embedded import broker
from backend.embedded.home import Home
from backend.embedded.log import Log
from backend.embedded.part import Part
from backend.embedded.supervisor import Supervisor
from backend.errors import FanfareError
from backend.settings import Settings
from contract.signals import Signals, connect

NOT_FOR_NODES = (
    "FANFARE_DATABASE_URL",
    "FANFARE_STORAGE_URL",
    "FANFARE_SECRET_KEY",
    "FANFARE_S3_",
    "FANFARE_SUPABASE_",
    "FANFARE_LLM_",
    "AWS_",
    "SUPABASE_",
)
WORKERS, API, BROKER = range(3)  # the stages of the end
API_STOPS_WITHIN_S = serving.OPEN_STREAMS_END_WITHIN_S + 5
ROOT_IS_FINE = "ignore:You're running the worker with superuser privileges"  # it takes JSON only
PING_WITHIN_S = 0.5
BROKER_STOPS_WITHIN_S = 10


class WrongSettings(FanfareError):
    """The settings contradict each other."""

    code = "wrong_settings"


@dataclass(frozen=True)
class UpOptions:
    """What the user may choose for one run."""

    nodes: int = 1
    engines: str = ""  # comma-separated; empty: what the node's own settings say
    stop_within_s: float = 45  # what nodes (which drain by themselves) and workers get to finish
    port_asked_for: bool = False
    lifeline: int | None = None  # a descriptor; when it closes, the stack ends
    private: bool = False  # for one command on this machine: own addresses, whatever the settings say


def up(settings: Settings, options: UpOptions, log: Log) -> None:
    """Runs everything until it is told to stop. Raises `FanfareError` where that can't be."""
    home = Home(settings.home)
    home.prepare()
    with home.lock() as lock:
        _check_database(settings)
        host, note = (serving.LOOPBACK, None) if options.private else serving.permitted_host(settings)
        if note:
            log.note(note)
        with (
            serving.bind(host, settings.api_port, asked_for=options.port_asked_for) as listener,
            Supervisor(log.line, lifeline=options.lifeline, lock=lock) as supervisor,
        ):
            stack = Stack(settings, options, listener, log)
            try:
                if stack.start(supervisor):
                    home.announce(stack.local_url)
                    log.note(stack.welcome())
                    supervisor.watch()
            finally:
                log.note("Stopping: what is in hand is finished first. Ctrl-C again kills.")
                stack.stop(supervisor)


def _check_database(settings: Settings) -> None:
    """A server that is away or misspelt is told at once; a file is made by the parts themselves."""
    if not settings.database_url.startswith("sqlite:"):
        from backend.migrate import migrate

        migrate(settings)


class Stack:
    """The parts, for one set of settings."""

    def __init__(self, settings: Settings, options: UpOptions, listener: socket.socket, log: Log) -> None:
        self._settings = settings
        self._options = options
        self._listener = listener
        self._log = log
        self._node_names = [f"node-{number}" for number in range(1, options.nodes + 1)]
        host, port = listener.getsockname()[:2]
        if port != settings.api_port:
            log.note(f"Port {settings.api_port} is taken by another program: the API listens on {port}.")
        self._reachable = serving.LOOPBACK if host in ("0.0.0.0", "::") else host  # noqa: S104 - not bound
        self._port = port
        self.local_url = (
            f"http://[{self._reachable}]:{port}" if ":" in host else f"http://{self._reachable}:{port}"
        )
        self._env: dict[str, str] = dict(os.environ) | self._addresses(host, port)

    def _addresses(self, host: str, port: int) -> dict[str, str]:
        named = {
            "PYTHONUNBUFFERED": "1",
            "FANFARE_HOME": str(self._settings.home),
            "FANFARE_API_HOST": host,
            "FANFARE_API_PORT": str(port),
        }
        if self._options.private:
            named |= {"FANFARE_PUBLIC_URL": self.local_url, "FANFARE_NODE_URL": self.local_url}
        return named

    # -- up -------------------------------------------------------------------------------------------

    def start(self, supervisor: Supervisor) -> bool:
        """True once everything works; False if a stop was requested meanwhile."""
        if self._settings.broker_url:
            if not self._settings.result_url:
                raise WrongSettings("FANFARE_RESULT_URL is needed (a Redis): the broker is not one.")
            self._env["FANFARE_BROKER_URL"] = self._settings.broker_url
            self._env["FANFARE_RESULT_URL"] = self._settings.result_url
        elif not self._start_broker(supervisor):
            return False
        return supervisor.start([self._api(), self._worker(), *self._nodes()])

    def _start_broker(self, supervisor: Supervisor) -> bool:
        embedded = broker.prepare(self._settings.home)
        self._env["FANFARE_BROKER_URL"] = embedded.url
        self._env["FANFARE_RESULT_URL"] = self._settings.result_url or embedded.url
        part = Part(
            "broker", embedded.argv, _without(self._env, ("FANFARE_", "AWS_")), embedded.answers, stage=BROKER
        )
        return supervisor.start([part])

    def _api(self) -> Part:
        return Part(
            "api",
            _fanfare("api", "--fd", str(self._listener.fileno())),
            self._env,
            self._api_answers,
            pass_fds=(self._listener.fileno(),),
            stage=API,
        )

    def _api_answers(self) -> bool:
        connection = HTTPConnection(self._reachable, self._port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _worker(self) -> Part:
        env = {"PYTHONWARNINGS": ROOT_IS_FINE} | self._env
        return Part("worker", _fanfare("worker", "--with-beat"), env, self._worker_listens)

    def _worker_listens(self) -> bool:
        """Any CPU worker will do: on a shared broker there may be others, and they do our work as well."""
        from celery import Celery
        from kombu.exceptions import OperationalError

        with Celery(broker=self._env["FANFARE_BROKER_URL"], set_as_current=False) as asking:
            try:
                replies = asking.control.ping(timeout=PING_WITHIN_S) or []
            except (OperationalError, redis.RedisError, OSError):
                return False
        return any(name.startswith("cpu-") for reply in replies for name in reply)

    def _nodes(self) -> list[Part]:
        env = _without(self._env, NOT_FOR_NODES)
        if self._options.engines:
            env["FANFARE_NODE_ENGINES"] = self._options.engines
        base = env.get("FANFARE_NODE_NAME") or socket.gethostname()
        return [self._node(name, env | {"FANFARE_NODE_NAME": f"{base}-{name}"}) for name in self._node_names]

    def _node(self, name: str, env: dict[str, str]) -> Part:
        begun = datetime.now(UTC)
        signals = Signals(connect(env["FANFARE_RESULT_URL"]))

        def announced() -> bool:
            try:
                nodes = signals.nodes()
            except redis.RedisError:
                return False
            return any(
                node.node.startswith(env["FANFARE_NODE_NAME"])
                and node.started_at >= begun
                and node.state == "ready"
                for node in nodes
            )

        return Part(name, (sys.executable, "-m", "gpu_worker"), env, announced, ready_within_s=600)

    def welcome(self) -> str:
        """Where everything is."""
        nodes = len(self._node_names)
        return (
            f"\nFanfare is ready ({nodes} node{'' if nodes == 1 else 's'}).\n"
            f"  API   {self.local_url}/v1\n"
            f"  docs  {self.local_url}/docs\n"
            f"  home  {self._settings.home}\n\n"
            f"  curl -s {self.local_url}/v1/thumbnails -H 'Content-Type: application/json' \\\n"
            '       -d \'{"message": "autumn sale for a small bookshop", "count": 4}\'\n\n'
            "Ctrl-C ends it.\n"
        )

    # -- down -----------------------------------------------------------------------------------------

    def stop(self, supervisor: Supervisor) -> None:
        """Nodes and worker finish what they have in hand, with API and broker still there for it."""
        supervisor.stop(WORKERS, within_s=self._options.stop_within_s)
        supervisor.stop(API, within_s=API_STOPS_WITHIN_S)
        supervisor.stop(BROKER, within_s=BROKER_STOPS_WITHIN_S)


def _fanfare(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "backend.cli", *arguments)


def _without(env: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(prefixes)}

"""A real RabbitMQ for the tests, apart from any other on this machine, and ended with the test run."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.services import LOOPBACK, Service, ServiceDidNotStart, free_port, listens, missing, service_folder

ALL_PERMISSIONS = {"configure": ".*", "write": ".*", "read": ".*"}


class RabbitServer:
    """A RabbitMQ with its management API, on ports of its own. May be stopped and started: data stay."""

    USER = "guest"  # may come from this machine only

    def __init__(self, binary: str, folder: Path, **configuration: str) -> None:
        self.port, self._management, distribution, epmd = (free_port() for _ in range(4))
        self._numbers = itertools.count(1)
        listening = {
            "listeners.tcp.1": f"{LOOPBACK}:{self.port}",
            "management.tcp.ip": LOOPBACK, "management.tcp.port": str(self._management),
            "log.console": "true", "log.console.level": "warning", "log.file": "false",
            "disk_free_limit.absolute": "50MB",
        }  # fmt: skip
        lines = [f"{name} = {value}" for name, value in (listening | configuration).items()]
        (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (folder / "plugins").write_text("[rabbitmq_management].\n")
        env = {
            "HOME": str(folder), "LANG": "C.UTF-8", "ERL_CRASH_DUMP": str(folder / "crash"),
            "RABBITMQ_NODENAME": f"fanfare-{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": LOOPBACK, "ERL_EPMD_PORT": str(epmd),
        }  # fmt: skip
        # Erlang starts a port mapper where it finds none, and leaves it behind
        mapper = [shutil.which("epmd") or "epmd", "-address", LOOPBACK, "-port", str(epmd)]
        self.mapper = Service(mapper, folder / "epmd.log", lambda: listens(epmd), env=env)
        self.service = Service([binary], folder / "log", self._answers, env=env)

    def url(self, vhost: str = "") -> str:
        """The URL of one of its virtual hosts."""
        return f"amqp://{self.USER}:{self.USER}@{LOOPBACK}:{self.port}/{vhost}"

    def new_url(self) -> str:
        """The URL of a virtual host that nobody has used yet."""
        vhost = f"test-{next(self._numbers)}"
        self.manage("PUT", f"vhosts/{vhost}")
        self.manage("PUT", f"permissions/{vhost}/{self.USER}", **ALL_PERMISSIONS)
        return self.url(vhost)

    def drop(self, url: str) -> None:
        """The virtual host of that URL, with all that is in it."""
        self.manage("DELETE", f"vhosts/{url.rpartition('/')[2]}")

    def manage(self, method: str, path: str, **body: Any) -> Any:
        """Asks the management API."""
        answer = httpx.request(
            method, f"http://{LOOPBACK}:{self._management}/api/{path}", auth=(self.USER, self.USER),
            json=body or None, timeout=30, trust_env=False,
        )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Started for the length of the block."""
        with self.mapper.running(), self.service.running():
            yield

    def _answers(self) -> bool:
        try:
            self.manage("GET", "health/checks/virtual-hosts")
        except (httpx.HTTPError, AssertionError):
            return False
        return listens(self.port)


def find_rabbitmq() -> str | None:
    """The server itself: what Debian puts on the PATH changes the user and writes the log elsewhere."""
    for binary in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")):
        return str(binary)
    return None if Path("/etc/debian_version").exists() else shutil.which("rabbitmq-server")


@contextlib.contextmanager
def rabbitmq_server(**configuration: str) -> Iterator[RabbitServer]:
    """A server of one's own; skips, or fails in CI, where there is none."""
    binary = find_rabbitmq()
    if binary is None:
        missing("no RabbitMQ: apt-get install rabbitmq-server")
    with service_folder("rabbitmq") as folder:
        server = RabbitServer(binary, folder, **configuration)
        with contextlib.ExitStack() as started:
            try:
                started.enter_context(server.running())
            except ServiceDidNotStart as exc:
                missing(f"RabbitMQ did not start: {exc}")
            yield server

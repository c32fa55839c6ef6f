"""The server of this home: found where one runs, started for one command where none does."""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Self

from backend.client.api import ApiProblem, Client
from backend.embedded.home import Home, write_private
from backend.errors import FanfareError
from backend.settings import Settings

STARTS_WITHIN_S = 180
STOPS_WITHIN_S = 75  # more than `up` gives its parts, all stages together
HURRIED_STOP_S = 20
LOGS_KEPT = 20
LAST_LINES = 15


class StackFailed(FanfareError):
    """The embedded stack did not come up."""

    code = "stack_failed"


class NoServer(FanfareError):
    """No server runs here. `fanfare up` starts one; or name one: --server URL or FANFARE_API_URL."""

    code = "no_server"


class LocalServer:
    """Use it with `with`: what it has started is stopped at the end, however that comes."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """`say` is told what takes a while."""
        self._settings = settings
        self._home = Home(settings.home)
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self) -> str:
        """The address of a server that is ready: the one that runs or starts, or else one of our own.

        Raises `StackFailed`, `HomeUnusable`.
        """
        self._home.prepare()
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline:
            running = self._home.running()
            if running and running.url:
                return running.url
            if running is None and self._process is None:
                self._start()
            elif self._process and self._process.poll() is not None:
                self._start_failed()
            time.sleep(0.1)
        raise StackFailed(f"The server was not ready within {STARTS_WITHIN_S} s.{self._where_the_log_is()}")

    def close(self) -> None:
        """Ends what was started here: in good order, and by force if this is interrupted."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            _end(process)
        except KeyboardInterrupt:
            _end(process, within_s=HURRIED_STOP_S)  # to `up` a second signal means: at once
        finally:
            assert process.stdin
            process.stdin.close()
            _wait_until_free(self._home)

    def _start(self) -> None:
        self._say("Starting broker, API, worker and node ...")
        if self._settings.llm == "openai":  # it may cost money, and a key in the shell is easily forgotten
            self._say(
                f"Prompts are written by {self._settings.llm_model}; FANFARE_LLM=template keeps it offline."
            )
        self._log = _new_log(self._home.logs)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "up", "--lifeline", "0"],
                stdin=subprocess.PIPE,  # closes when we end, even if we are killed: then it ends too
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_failed(self) -> None:
        """Raises, unless somebody else's server was quicker."""
        assert self._process
        self.close()
        if self._home.running() is None:
            raise StackFailed(f"The server did not start.{self._where_the_log_is()}")

    def _where_the_log_is(self) -> str:
        if self._log is None:
            return ""
        lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n" + "\n".join(f"  {line}" for line in lines) + f"\nThe whole log: {self._log}"


def _end(process: "subprocess.Popen[bytes]", *, within_s: float = STOPS_WITHIN_S) -> None:
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()  # its guardian ends the rest
        process.wait()


def _wait_until_free(home: Home) -> None:
    """Until the guardian of a killed server has ended all of it; at once where nothing was killed."""
    deadline = time.monotonic() + HURRIED_STOP_S
    while home.running() is None and home.held() and time.monotonic() < deadline:
        time.sleep(0.05)


def _new_log(folder: Path) -> Path:
    for old in sorted(folder.glob("make-*.log"))[: -LOGS_KEPT + 1]:
        old.unlink(missing_ok=True)
    path = folder / f"make-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"
    path.touch(mode=0o600)
    return path


def local_key(settings: Settings, url: str) -> str | None:
    """A key for this machine's own commands, where its server wants one: who reads the home may have it."""
    with Client(url) as client:
        try:
            client.models()
        except ApiProblem as problem:
            if problem.http_status == HTTPStatus.UNAUTHORIZED:
                return _kept_key(settings)
    return None


def _kept_key(settings: Settings) -> str:
    """The key that is kept in the home; made anew where there is none, or it was revoked."""
    from backend import keys  # with SQLAlchemy, which few commands need
    from backend.db import Database

    path = settings.home / "command-line.key"
    database = Database(settings.database_url)
    try:
        with database.session_scope() as session:
            text = path.read_text().strip() if path.exists() else ""
            if not text or keys.find(session, text) is None:
                _, text = keys.create(session, "command line of this machine")
                write_private(path, text + "\n")
            return text
    finally:
        database.close()


def find_server(settings: Settings, url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """Address and key of the server to speak to: the one that was named, or else the one of this home."""
    if url:
        return url, api_key
    running = Home(settings.home).running()
    if running and running.url:
        return running.url, api_key or local_key(settings, running.url)
    raise NoServer

"""The round that the doctor makes."""

import os
import shutil
import sys
from collections.abc import Iterator

from pydantic import ValidationError

from backend.doctor import services
from backend.doctor.findings import Finding, fail, off, ok, warn
from backend.doctor.variables import environment, explain, in_use, unknown
from backend.embedded import broker
from backend.embedded.broker import NoBrokerFound
from backend.embedded.home import Home, HomeUnusable
from backend.errors import FanfareError
from backend.resources import Resources
from backend.settings import Settings

LITTLE_SPACE_BYTES = 2 * 1024**3
NOWHERE = "redis://127.0.0.1:1/0"  # lets adapters be opened that need no broker


def examine() -> Iterator[Finding]:
    """One finding after the other, as they are made."""
    yield ok("python", sys.version.split()[0])
    given = environment()
    yield from unknown(given)
    try:
        settings = Settings()
    except ValidationError as exc:
        for line in explain(exc):
            yield fail("settings", line, "Correct it in the environment or in .env.")
        return
    yield in_use(settings, given)
    yield from _home(settings)
    yield from services.addresses(settings)
    yield from services.access(settings)
    yield from services.sign_in(settings)
    yield services.database(settings)
    yield from _connections(settings)


def _home(settings: Settings) -> Iterator[Finding]:
    home = Home(settings.home)
    try:
        home.prepare()
    except HomeUnusable as exc:
        yield fail("home", str(settings.home), exc.detail)
        return
    yield ok("home", str(settings.home))
    if os.name == "posix" and home.path.stat().st_mode & 0o077:
        yield warn(
            "home", "others on this machine can read it: it holds secrets", f"chmod 700 {settings.home}"
        )
    free = shutil.disk_usage(settings.home).free
    if free < LITTLE_SPACE_BYTES:
        yield warn(
            "home", f"only {free / 1024**3:.1f} GiB are free", "Make room, or set FANFARE_HOME elsewhere."
        )


def _connections(settings: Settings) -> Iterator[Finding]:
    running = Home(settings.home).running()
    url = running.url if running else ""
    broker_url, result_url = settings.broker_url, settings.result_url
    if not broker_url:
        embedded = broker.of_running(settings.home) if running else None
        broker_url = embedded.url if embedded else ""
        result_url = result_url or broker_url
    if broker_url:
        yield services.broker(broker_url)
        yield from services.result_store(result_url)
        yield services.nodes(result_url, settings)
    else:
        yield _embedded_broker()
    yield services.api(url) if url else off("api")
    yield from _adapters(settings, broker_url, result_url, url)


def _embedded_broker() -> Finding:
    try:
        return off("broker", f"not running: `fanfare up` starts {broker.find_binary()}")
    except NoBrokerFound as exc:
        return fail("broker", "none is set, and none can be started", exc.detail)


def _adapters(settings: Settings, broker_url: str, result_url: str, api_url: str) -> Iterator[Finding]:
    """`api_url`: of the server that runs here; its file URLs are checked under that address."""
    changed = {"broker_url": broker_url or NOWHERE, "result_url": result_url or NOWHERE}
    if api_url and "FANFARE_PUBLIC_URL" not in environment():
        changed |= {"public_url": api_url, "node_url": api_url}
    try:
        resources = Resources.open(settings.model_copy(update=changed))
    except FanfareError as exc:
        yield fail("settings", exc.detail, "Correct it in the environment or in .env.")
        return
    try:
        yield from services.storage(resources.storage, settings, api_runs=bool(api_url))
        yield services.llm(resources.llm, settings)
        yield from services.mail(settings)
    finally:
        resources.close()

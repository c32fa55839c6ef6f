"""A real server over real services; the workers are the tests themselves."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import kombu.pools
import pytest
import uvicorn
from fastapi import FastAPI

from backend import db, serving
from backend.celery_app import app as celery_app
from backend.main import create_app
from backend.resources import Resources
from backend.settings import Settings
from contract.messages import Device, ModelCard, NodeAnnouncement
from contract.queues import celery_settings


@dataclass
class Server:
    """A running API."""

    url: str
    app: FastAPI
    settings: Settings

    @property
    def resources(self) -> Resources:
        """What the API has opened."""
        resources = self.app.state.resources
        assert isinstance(resources, Resources)
        return resources


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers on free ports of the loopback; all of them end with the test."""
    use_broker(redis_url)
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**values: Any) -> Server:
        listener = serving.bind("127.0.0.1", 0, asked_for=True)
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        given: dict[str, Any] = {
            "home": tmp_path / "home", "database_url": database_url, "broker_url": redis_url,
            "result_url": redis_url, "storage_url": (tmp_path / "files").as_uri(), "public_url": url,
            "node_url": url, "llm": "template",
        } | values  # fmt: skip
        settings = Settings(_env_file=None, **given)
        db.upgrade(settings.database_url)
        app = create_app(settings)
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        running.append((server, thread))
        httpx.get(f"{url}/healthz", timeout=20).raise_for_status()
        return Server(url, app, settings)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A server with the defaults, and one live node that serves `sketch`."""
    server = start_server()
    announce(server)
    return server


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def use_broker(url: str) -> None:
    """Lets the one Celery app of this process talk to another broker."""
    celery_app.conf.update(celery_settings(url, url))
    app: Any = celery_app  # what it has opened already is private to it
    kombu.pools.reset()
    app._pool = app.amqp._producer_pool = None
    app._local.__dict__.pop("backend", None)


def announce(server: Server, *models: ModelCard) -> None:
    """A node says that it is alive."""
    now = datetime.now(UTC)
    cards = models or (ModelCard(name="sketch", engine="sketch", can_set_title=True),)
    server.resources.signals.announce(
        NodeAnnouncement(
            node="n1",
            version="0",
            device=Device(kind="cpu", name="cpu"),
            models=cards,
            loaded=("sketch",),
            started_at=now,
            seen_at=now,
        )
    )

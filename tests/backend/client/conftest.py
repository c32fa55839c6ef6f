"""A scripted server, and a client that doesn't pause long."""

from collections.abc import Iterator

import pytest

from backend.client import api as client_module
from backend.client.api import Client
from tests.backend.client.scripted_api import ScriptedApi


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(client_module, "POLL_EVERY_S", 0.01)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    yield api
    api.close()


@pytest.fixture
def client(api: ScriptedApi) -> Iterator[Client]:
    with Client(api.url, api_key="ff_key") as client:
        yield client

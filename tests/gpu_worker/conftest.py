"""Real services for the node's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.signals import Signals, connect
from tests.gpu_worker.http_server import ScriptedServer
from tests.gpu_worker.valkey import Valkey


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """An empty one. Not to be stopped: others use it too."""
    with shared_valkey.client() as client:
        client.flushall()
    return shared_valkey


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """One that may be stopped and started again; it wants a password."""
    server = Valkey(tmp_path, password="pa55-w0rd")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def signals(valkey: Valkey) -> Iterator[Signals]:
    client = connect(valkey.url)
    yield Signals(client)
    client.close()


@pytest.fixture
def storage() -> Iterator[ScriptedServer]:
    """Takes uploads."""
    with ScriptedServer() as server:
        yield server

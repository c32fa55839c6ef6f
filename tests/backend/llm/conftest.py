"""A scripted server, and the adapter that talks to it with the real SDK."""

import threading
from collections.abc import Iterator

import pytest

from backend.llm.openai import OpenAILLM
from tests.backend.llm.scripted_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def llm(server: ScriptedServer) -> OpenAILLM:
    return OpenAILLM(api_key="sk-test-secret", base_url=server.url, model="m", timeout_s=5)

"""A scripted server, and the adapter that talks to it with the real SDK."""

from collections.abc import Iterator

import pytest

from backend.llm.openai import OpenAILLM
from tests.backend.llm.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def llm(server: ScriptedServer) -> OpenAILLM:
    return OpenAILLM(api_key="sk-test-secret", base_url=server.url, model="m", timeout_s=5)

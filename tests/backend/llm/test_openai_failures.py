"""The adapter against servers that fail: each failure has its error, in time, and leaves nothing open."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from backend.errors import (
    LLMBadAnswer,
    LLMError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMTimeout,
    LLMUnauthorized,
    LLMUnavailable,
)
from backend.llm.base import PromptRequest
from backend.llm.openai import OpenAILLM
from tests.backend.llm.scripted_server import (
    ScriptedServer,
    Step,
    drip,
    drip_headers,
    flood,
    hang,
    prompts,
    raw,
    refused,
    reset_amid_body,
    status,
)

REQUEST = PromptRequest("a harbour", 2)
KEY = "sk-test-secret"


def failure_of(llm: OpenAILLM) -> LLMError:
    with pytest.raises(LLMError) as caught:
        llm.write_prompts(REQUEST)
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not happens() and time.monotonic() < until:
        time.sleep(0.01)
    return happens()


# -- refusals over HTTP -------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Step, type[LLMError]]] = {
    "401": (refused(401, f"Incorrect API key provided: {KEY}"), LLMUnauthorized),
    "403": (refused(403, "no"), LLMUnauthorized),
    "402": (refused(402, "Insufficient Balance"), LLMQuotaExceeded),
    "429": (refused(429, "slow down", code="rate_limit_exceeded"), LLMRateLimited),
    "429 without quota": (refused(429, "You exceeded", code="insufficient_quota"), LLMQuotaExceeded),
    "500": (refused(500, "oops"), LLMUnavailable),
    "502 HTML": (raw(502, b"<h1>Bad gateway</h1>", "text/html"), LLMUnavailable),
    "503": (status(503, {}), LLMUnavailable),
    "529": (status(529, {"error": "overloaded"}), LLMUnavailable),
    "408": (refused(408, "too slow"), LLMTimeout),
    "404 model": (refused(404, "The model `m` does not exist", code="model_not_found"), LLMError),
    "404 Ollama": (refused(404, "model 'm' not found, try pulling it first"), LLMError),
    "404 page": (raw(404, b"<h1>404</h1>", "text/html"), LLMError),
    "400": (refused(400, "bad request"), LLMError),
    "400 too long": (
        refused(400, "maximum context length is 8192", code="context_length_exceeded"),
        LLMError,
    ),
    "301": (status(301, {}, Location="https://elsewhere.invalid/"), LLMError),
    "307": (status(307, {}, Location="/v2/chat/completions"), LLMError),
    "429 under 200": (status(200, {"error": {"code": 429, "message": "slow down"}}), LLMRateLimited),
    "an error under 200": (status(200, {"error": {"message": "upstream"}, "choices": None}), LLMUnavailable),
}


@pytest.mark.parametrize(("step", "error"), REFUSALS.values(), ids=REFUSALS.keys())
def test_translates(server: ScriptedServer, llm: OpenAILLM, step: Step, error: type[LLMError]) -> None:
    server.otherwise = step

    failure = failure_of(llm)

    assert type(failure) is error
    assert failure.retryable == (error in (LLMUnavailable, LLMRateLimited, LLMTimeout))
    assert KEY not in failure.detail
    assert len(server.seen) <= 3
    assert all(seen.path == "/v1/chat/completions" for seen in server.seen)


@pytest.mark.parametrize(
    ("step", "word"),
    [
        (REFUSALS["404 model"][0], "doesn't know the model"),
        (REFUSALS["404 page"][0], "no chat completions"),
        (REFUSALS["400 too long"][0], "longer than"),
        (REFUSALS["301"][0], "redirects"),
        (REFUSALS["400"][0], "HTTP 400"),
    ],
)
def test_says_what_to_mend(server: ScriptedServer, llm: OpenAILLM, step: Step, word: str) -> None:
    server.otherwise = step
    assert word in failure_of(llm).detail


def test_the_log_has_the_servers_words_without_the_key(
    server: ScriptedServer, llm: OpenAILLM, caplog: pytest.LogCaptureFixture
) -> None:
    server.otherwise = REFUSALS["401"][0]
    with caplog.at_level(logging.WARNING, "backend.llm"):
        failure_of(llm)
    assert "Incorrect API key provided: ***" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "3600"}, 60),
        ({"Retry_After": "0"}, 1),
        ({"Retry_After": formatdate(time.time() + 3600, usegmt=True)}, 60),
        ({"Retry_After": "Fri, 01 Jan 1999 00:00:00 GMT"}, 1),
        ({"retry_after_ms": "1500"}, 2),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "-5"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_carries_retry_after(
    server: ScriptedServer, llm: OpenAILLM, code: int, headers: dict[str, str], seconds: int | None
) -> None:
    server.otherwise = status(code, {}, **headers)
    began = time.monotonic()
    assert failure_of(llm).retry_after_s == seconds
    assert len(server.seen) == 1
    assert time.monotonic() - began < 5  # nobody has slept


# -- the connection -----------------------------------------------------------------------------------


def test_connection_refused() -> None:
    llm = OpenAILLM(api_key=KEY, base_url=f"http://127.0.0.1:{free_port()}/v1", model="m", timeout_s=5)
    assert type(failure_of(llm)) is LLMUnavailable


def test_unknown_host() -> None:
    llm = OpenAILLM(api_key=KEY, base_url="http://nowhere.invalid/v1", model="m", timeout_s=5)
    assert type(failure_of(llm)) in (LLMUnavailable, LLMTimeout)


def test_not_http_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        llm = OpenAILLM(api_key=KEY, base_url=url, model="m", timeout_s=5)

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 smtp.example ESMTP\r\n")

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert type(failure_of(llm)) is LLMUnavailable
        speaker.join(5)


def test_reset_amid_the_body(server: ScriptedServer, llm: OpenAILLM) -> None:
    server.otherwise = reset_amid_body
    assert type(failure_of(llm)) is LLMUnavailable


def test_a_flood_is_not_drunk(server: ScriptedServer, llm: OpenAILLM) -> None:
    server.otherwise = flood
    assert type(failure_of(llm)) is LLMBadAnswer


@pytest.mark.parametrize("step", [hang, drip, drip_headers])
def test_one_deadline_whatever_the_server_does(server: ScriptedServer, step: Step) -> None:
    server.otherwise = step
    llm = OpenAILLM(api_key=KEY, base_url=server.url, model="m", timeout_s=2)  # in which a request is made
    threads = threading.active_count()
    began = time.monotonic()

    failure = failure_of(llm)

    assert type(failure) is LLMTimeout
    assert time.monotonic() - began < 15
    if step is not hang:  # it notices at its next byte
        assert server.abandoned.wait(10), "the connection was left open"
    assert within(10, lambda: threading.active_count() <= threads + 1)  # one is the server's own


def test_the_deadline_is_for_all_rounds_together(server: ScriptedServer) -> None:
    slow = 0.15

    def slowly(number: int) -> Step:
        def step(handler: object, seen: object) -> None:
            time.sleep(slow)
            prompts(f"a harbour, seen for the time {number}")(handler, seen)  # type: ignore[arg-type]

        return step

    server.script = [slowly(number) for number in range(6)]
    llm = OpenAILLM(api_key=KEY, base_url=server.url, model="m", timeout_s=0.35)

    with pytest.raises(LLMTimeout):
        llm.write_prompts(PromptRequest("a harbour", 6))
    assert len(server.seen) <= 3


# -- configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["localhost:11434/v1", "ftp://host/v1", "http://", "http://[::1", "http://h:x/"]
)
def test_a_url_that_is_none(url: str) -> None:
    failure = failure_of(OpenAILLM(api_key=KEY, base_url=url, model="m", timeout_s=1))
    assert (failure.code, failure.retryable) == ("llm_failed", False)
    assert "http://" in failure.detail


@pytest.mark.parametrize("key", ["sk-ключ", "sk-a\nb"])
def test_a_key_that_is_none(key: str) -> None:
    llm = OpenAILLM(api_key=key, base_url="http://127.0.0.1:9/v1", model="m", timeout_s=1)
    assert type(failure_of(llm)) is LLMUnauthorized


# -- check --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [status(200, {"object": "list", "data": []}), refused(404, "no"), status(405, {})]
)
def test_check_is_content_with_a_server_that_is_there(
    server: ScriptedServer, llm: OpenAILLM, step: Step
) -> None:
    server.otherwise = step
    llm.check()
    assert server.seen[0].path == "/v1/models"


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (refused(401, "no"), LLMUnauthorized),
        (refused(503, "no"), LLMUnavailable),
        (raw(200, b"<html>", "text/html"), LLMBadAnswer),
        (status(302, {}, Location="/login"), LLMError),
    ],
)
def test_check_says_what_is_wrong(
    server: ScriptedServer, llm: OpenAILLM, step: Step, error: type[LLMError]
) -> None:
    server.otherwise = step
    with pytest.raises(LLMError) as caught:
        llm.check()
    assert type(caught.value) is error


def test_check_ends_in_time(server: ScriptedServer) -> None:
    server.otherwise = drip
    llm = OpenAILLM(api_key=KEY, base_url=server.url, model="m", timeout_s=0.3)
    with pytest.raises(LLMTimeout):
        llm.check()

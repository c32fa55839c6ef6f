"""The openai engine: the real SDK against a local server that answers well, badly, or not at all."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from contract.messages import FailureCode
from gpu_worker.engines.base import Failure, ImageRequest, Outcome, Picture
from gpu_worker.engines.openai import OpenAIEngine, alias_of, nearest_size
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen, as_json
from tests.gpu_worker.messages import request

KEY = "sk-test-key"


class FakeWatch:
    def __init__(self) -> None:
        self.gone: set[str] = set()

    def progress(self, request_id: str, fraction: float) -> None: ...

    def preview(self, request_id: str, jpeg: bytes) -> None: ...

    def canceled(self, request_id: str) -> bool:
        return request_id in self.gone


def image_bytes(size: tuple[int, int] = (1024, 1024), form: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, "teal").save(file, form)
    return file.getvalue()


def made(content: bytes | None = None, **extra: Any) -> Answer:
    text = base64.b64encode(content if content is not None else image_bytes()).decode()
    return as_json({"created": 1, "data": [{"b64_json": text, **extra}]})


def refused(status: int, code: str | None = None, text: str = "vendor text", **headers: str) -> Answer:
    return as_json({"error": {"message": text, "type": "some_error", "code": code}}, status, **headers)


def echo(seen: Seen) -> Answer:
    """An image of the size that was asked for."""
    width, height = json.loads(seen.body)["size"].split("x")
    return made(image_bytes((int(width), int(height))))


@pytest.fixture
def provider() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def engine_at(provider: ScriptedServer, *, model: str = "gpt-image-1", timeout_s: float = 10) -> OpenAIEngine:
    return OpenAIEngine(api_key=KEY, base_url=provider.url + "/v1", models=[model], timeout_s=timeout_s)


def ask(
    provider: ScriptedServer,
    asked: ImageRequest | None = None,
    *,
    timeout_s: float = 10,
    model: str = "gpt-image-1",
) -> Outcome:
    engine = engine_at(provider, model=model, timeout_s=timeout_s)
    asked = asked or request("a cat", model=alias_of(model))
    (outcome,) = engine.generate([asked], FakeWatch())
    return outcome


def failure(provider: ScriptedServer, **options: Any) -> tuple[FailureCode, bool]:
    outcome = ask(provider, **options)
    assert isinstance(outcome, Failure)
    assert "vendor" not in outcome.message
    assert KEY not in outcome.message
    return outcome.code, outcome.retryable


def test_makes_a_picture_of_exactly_the_size_asked_for(provider: ScriptedServer) -> None:
    provider.script([echo])

    outcome = ask(provider, request("a cat", model="gpt-image-1", width=640, height=360))

    assert isinstance(outcome, Picture)
    assert (outcome.image.size, outcome.image.mode) == ((640, 360), "RGB")
    assert outcome.made_with["seed_used"] is False
    assert outcome.made_with["provider_size"] == "1536x1024"
    (seen,) = provider.seen
    assert seen.path == "/v1/images/generations"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(seen.body) == {"model": "gpt-image-1", "prompt": "a cat", "n": 1, "size": "1536x1024"}


def test_other_servers_are_asked_for_base64_and_the_very_size(provider: ScriptedServer) -> None:
    provider.script([echo])

    outcome = ask(provider, request(model="lab-flux.1", width=640, height=360), model="lab/FLUX.1")

    assert isinstance(outcome, Picture)
    question = json.loads(provider.seen[0].body)
    assert (question["model"], question["size"]) == ("lab/FLUX.1", "640x360")
    assert question["response_format"] == "b64_json"


def test_the_negative_prompt_is_put_into_words(provider: ScriptedServer) -> None:
    provider.script([echo])
    asked = ImageRequest("1", "gpt-image-1", "a cat", 64, 64, seed=1, negative_prompt="dogs")

    ask(provider, asked)

    assert json.loads(provider.seen[0].body)["prompt"] == "a cat\n\nAvoid: dogs"


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB")])
def test_takes_the_usual_formats(provider: ScriptedServer, form: str, mode: str) -> None:
    provider.script([made(image_bytes((64, 64), form, mode))])

    outcome = ask(provider)

    assert isinstance(outcome, Picture)
    assert outcome.image.mode in ("RGB", "RGBA")


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (refused(401, "invalid_api_key"), FailureCode.PROVIDER_UNAUTHORIZED, False),
        (refused(403), FailureCode.PROVIDER_UNAUTHORIZED, False),
        (refused(404, "model_not_found"), FailureCode.MODEL_NOT_AVAILABLE, False),
        (refused(400, "moderation_blocked"), FailureCode.CONTENT_REFUSED, False),
        (refused(400, "content_policy_violation"), FailureCode.CONTENT_REFUSED, False),
        (refused(400, None, "rejected by the safety system"), FailureCode.CONTENT_REFUSED, False),
        (refused(400, "invalid_size"), FailureCode.INVALID_REQUEST, False),
        (refused(429, "insufficient_quota"), FailureCode.PROVIDER_RATE_LIMITED, False),
        (refused(500), FailureCode.PROVIDER_FAILED, True),
        (Answer(502, b"<html>vendor text</html>"), FailureCode.PROVIDER_FAILED, True),
        (Answer(200, b"<html>hi</html>", {"content-type": "text/html"}), FailureCode.PROVIDER_FAILED, True),
        (Answer(200, b'{"data": [', {"content-type": "application/json"}), FailureCode.PROVIDER_FAILED, True),
        (
            Answer(200, b"\xff\xfe\x00", {"content-type": "application/json"}),
            FailureCode.PROVIDER_FAILED,
            True,
        ),
        (Answer(200, b"", {"content-type": "application/json"}), FailureCode.PROVIDER_FAILED, True),
        (as_json({}), FailureCode.PROVIDER_FAILED, True),
        (as_json([]), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": None}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": []}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": [None]}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": ["x"]}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": [{"b64_json": ""}]}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": [{"b64_json": "%%%"}]}), FailureCode.PROVIDER_FAILED, True),
        (as_json({"data": [{"url": "http://169.254.169.254/"}]}), FailureCode.PROVIDER_FAILED, False),
        (made(b"<html>vendor</html>"), FailureCode.PROVIDER_FAILED, True),
        (made(image_bytes()[:-400]), FailureCode.PROVIDER_FAILED, True),
        (made(image_bytes((16, 16), "GIF")), FailureCode.PROVIDER_FAILED, True),
        (made(image_bytes((9000, 9000), "PNG", "1")), FailureCode.PROVIDER_FAILED, True),
        (made(image_bytes((14000, 14000), "PNG", "1")), FailureCode.PROVIDER_FAILED, True),
        (Answer(reset=True), FailureCode.PROVIDER_FAILED, True),
        (Answer(302, headers={"Location": "/elsewhere"}), FailureCode.PROVIDER_FAILED, True),
    ],
    ids=lambda value: (
        getattr(value, "body", b"")[:40].decode("latin-1") if isinstance(value, Answer) else None
    ),
)
def test_bad_answers(provider: ScriptedServer, answer: Answer, code: FailureCode, retryable: bool) -> None:
    provider.script([answer])

    assert failure(provider) == (code, retryable)
    assert len(provider.seen) == 1


def test_nobody_listens() -> None:
    with ScriptedServer() as server:
        pass

    assert failure(server) == (FailureCode.PROVIDER_FAILED, True)


def test_waits_as_long_as_a_rate_limit_says(provider: ScriptedServer) -> None:
    provider.script([refused(429, retry_after="0.3"), echo])
    begun = time.monotonic()

    assert isinstance(ask(provider), Picture)
    assert time.monotonic() - begun > 0.3


def test_does_not_wait_for_ever(provider: ScriptedServer) -> None:
    provider.script([refused(429, retry_after="0")])

    assert failure(provider) == (FailureCode.PROVIDER_RATE_LIMITED, True)
    assert len(provider.seen) == 3


@pytest.mark.parametrize(
    "answer",
    [Answer(body=b"x" * 500, drip_s=0.02), Answer(wait_s=5), refused(429, retry_after="3600")],
    ids=["drips", "is silent", "wants an hour"],
)
def test_there_is_a_deadline_for_the_whole(provider: ScriptedServer, answer: Answer) -> None:
    provider.script([answer])
    begun = time.monotonic()

    assert failure(provider, timeout_s=0.5) == (FailureCode.PROVIDER_FAILED, True)
    assert time.monotonic() - begun < 4


def test_one_refusal_leaves_its_neighbours_alone_and_all_are_asked_at_once(provider: ScriptedServer) -> None:
    asked = threading.Barrier(4, timeout=60)

    def by_prompt(seen: Seen) -> Answer:
        asked.wait()  # nobody is answered before all are asked
        if json.loads(seen.body)["prompt"] == "bad":
            return refused(400, "moderation_blocked")
        return echo(seen)

    provider.script([by_prompt])
    batch = [request(prompt, model="gpt-image-1") for prompt in ("one", "bad", "two", "three")]

    outcomes = engine_at(provider).generate(batch, FakeWatch())

    assert [isinstance(outcome, Picture) for outcome in outcomes] == [True, False, True, True]


def test_a_canceled_image_is_abandoned_while_its_neighbour_goes_on(provider: ScriptedServer) -> None:
    def slow(seen: Seen) -> Answer:
        answer = echo(seen)
        answer.wait_s = 8 if json.loads(seen.body)["prompt"] == "gone" else 0.5
        return answer

    provider.script([slow])
    gone, here = request("gone", model="gpt-image-1"), request("here", model="gpt-image-1")
    watch = FakeWatch()
    watch.gone = {gone.id}
    begun = time.monotonic()

    first, second = engine_at(provider).generate([gone, here], watch)

    assert isinstance(first, Failure)
    assert first.code is FailureCode.CANCELED
    assert isinstance(second, Picture)
    assert time.monotonic() - begun < 7


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ((512, 512), (1024, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((1920, 1080), (1536, 1024)),
        ((640, 1136), (1024, 1536)),
        ((2048, 64), (1536, 1024)),
    ],
)
def test_nearest_size(asked: tuple[int, int], nearest: tuple[int, int]) -> None:
    assert nearest_size(*asked, ((1024, 1024), (1536, 1024), (1024, 1536))) == nearest


def test_nearest_size_is_the_smallest_that_is_large_enough() -> None:
    squares = ((256, 256), (512, 512), (1024, 1024))

    assert nearest_size(300, 300, squares) == (512, 512)
    assert nearest_size(2000, 2000, squares) == (1024, 1024)


def test_announces_its_models_under_plain_names() -> None:
    engine = OpenAIEngine(api_key="", base_url="", models=["gpt-image-1", "Lab/FLUX.1 dev"], timeout_s=1)

    assert [card.name for card in engine.models()] == ["gpt-image-1", "lab-flux.1-dev"]
    assert (engine.device.kind, engine.device.name) == ("remote", "api.openai.com")
    assert set(engine.state().loaded) == {"gpt-image-1", "lab-flux.1-dev"}
    with pytest.raises(ValueError, match="name of a model"):
        alias_of("///")

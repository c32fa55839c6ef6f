"""POST /v1/thumbnails: what is accepted is kept, what is wrong is explained."""

import json
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend.jobs import queries
from backend.jobs.models import IdempotencyKey
from contract.messages import ModelCard
from tests.backend.api.conftest import Server, StartServer, announce, use_broker

GOOD: dict[str, Any] = {"message": "autumn sale for a small bookshop"}


def test_a_message_is_accepted(api: httpx.Client, server: Server) -> None:
    # When a message is sent
    answer = api.post("/v1/thumbnails", json=GOOD | {"count": 3, "metadata": {"order": "17"}})
    # Then the job is stored before the answer, and the answer tells all that is known of it
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['task_id']}"
    assert answer.headers["retry-after"] == "1"
    assert job["status"] == "pending"
    assert job["progress"] == {"completed": 0, "failed": 0, "total": 3, "fraction": 0.0}
    assert job["input"]["model"] == "sketch"
    assert (job["input"]["width"], job["input"]["height"]) == (1024, 1024)
    assert job["metadata"] == {"order": "17"}
    again = api.get(answer.headers["location"]).json()
    assert again["task_id"] == job["task_id"]
    assert list(server.resources.celery.connection_for_read().default_channel.client.lrange("llm", 0, -1))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"message": ""}, "#/message"),
        ({"message": " \n\t "}, "#/message"),
        ({"message": "x" * 65536}, "#/message"),
        ({"message": "bell \x07"}, "#/message"),
        ({"message": "null \x00"}, "#/message"),
        ({"message": "c1 \x85"}, "#/message"),
        ({"message": None}, "#/message"),
        ({"message": 4}, "#/message"),
        ({"count": 0}, "#/count"),
        ({"count": -1}, "#/count"),
        ({"count": 101}, "#/count"),
        ({"count": "four"}, "#/count"),
        ({"count": 2.5}, "#/count"),
        ({"count": True}, "#/count"),
        ({"unknown": 1}, "#/unknown"),
        ({"un/kn~own": 1}, "#/un~1kn~0own"),
        ({"model": "no-such"}, "#/model"),
        ({"model": ""}, "#/model"),
        ({"width": 1000 + 1}, "#/width"),
        ({"width": 8}, "#/width"),
        ({"height": 100_000}, "#/height"),
        ({"height": 2056}, "#/height"),
        ({"seed": -1}, "#/seed"),
        ({"seed": 2**32}, "#/seed"),
        ({"seed": 1.5}, "#/seed"),
        ({"steps": 0}, "#/steps"),
        ({"guidance": -1}, "#/guidance"),
        ({"output_format": "gif"}, "#/output_format"),
        ({"thumbnail_sizes": [0]}, "#/thumbnail_sizes/0"),
        ({"thumbnail_sizes": [64] * 9}, "#/thumbnail_sizes"),
        ({"title": "   "}, "#/title"),
        ({"scheduler": "nonsense"}, "#/scheduler"),
        ({"scheduler": ""}, "#/scheduler"),
        ({"loras": [{"name": "nonsense"}]}, "#/loras/0/name"),
        ({"loras": [{"name": "../x"}]}, "#/loras/0/name"),
        ({"loras": [{"name": "x", "weight": 5}]}, "#/loras/0/weight"),
        ({"loras": [{"name": "x"}, {"name": "x"}]}, "#/loras"),
        ({"loras": [{"name": "x"}] * 9}, "#/loras"),
        ({"reproducible": 1}, "#/reproducible"),
        ({"preview": True}, "#/preview"),
        ({"webhook": {"url": "http://127.0.0.1/x"}}, "#/webhook/url"),
        ({"webhook": {"url": "https://10.0.0.1/x"}}, "#/webhook/url"),
        ({"webhook": {"url": "https://169.254.169.254/latest"}}, "#/webhook/url"),
        ({"webhook": {"url": "https://[::1]/x"}}, "#/webhook/url"),
        ({"webhook": {"url": "ftp://example.com"}}, "#/webhook/url"),
        ({"webhook": {"url": "mailto:ann@example.com"}}, "#/webhook/url"),  # no mail server is set
        ({"webhook": {"url": "https://8.8.8.8/", "events": ["nothing"]}}, "#/webhook/events/0"),
        ({"metadata": {"big": "x" * 20000}}, "#/metadata"),
        ({"metadata": {"nul": "\x00"}}, "#/metadata"),
    ],
)
def test_what_is_wrong_is_pointed_at(api: httpx.Client, change: dict[str, Any], pointer: str) -> None:
    answer = api.post("/v1/thumbnails", json=GOOD | change)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert pointer in [error["pointer"] for error in problem["errors"]], problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 4000, "what was sent is not echoed"


def test_an_unknown_model_lists_the_known(api: httpx.Client, server: Server) -> None:
    announce(server, ModelCard(name="flux", engine="diffusers"), ModelCard(name="sketch", engine="sketch"))
    server.resources.nodes._read_at = float("-inf")
    answer = api.post("/v1/thumbnails", json=GOOD | {"model": "fluxx"})
    assert "flux, sketch" in answer.json()["errors"][0]["detail"]
    assert api.post("/v1/thumbnails", json=GOOD | {"model": "flux"}).status_code == 202


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "Expecting property name enclosed in double quotes"),
        (b'{"message": NaN}', "NaN is not JSON"),
        (b'{"message": "a", "guidance": 1e999}', "a number is out of range"),
        (b'{"metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 41, "nested deeper than 32"),
    ],
)
def test_why_a_body_is_no_json_is_told(api: httpx.Client, body: bytes, why: str) -> None:
    answer = api.post("/v1/thumbnails", content=body, headers={"content-type": "application/json"})
    assert [error["detail"] for error in answer.json()["errors"]] == [why]


def test_how_long_a_text_may_be_is_told_in_characters(api: httpx.Client) -> None:
    (error,) = api.post("/v1/thumbnails", json={"message": "a" * 16_001}).json()["errors"]
    assert error["detail"] == "Text should have at most 16000 characters, not 16001"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_json"),
        (b"", "application/json", 422, "invalid_request"),
        (b'{"message": NaN}', "application/json", 400, "malformed_json"),
        (b'{"message": "a", "guidance": 1e999}', "application/json", 400, "malformed_json"),
        (b'{"metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 41, "application/json", 400, "malformed_json"),
        (b"[" * 100_000, "application/json", 400, "malformed_json"),
        (b'{"message": "\\ud800"}', "application/json", 400, "malformed_json"),
        (b'{"message": "\xff"}', "application/json", 400, "malformed_json"),
        (b'{"message": "a", "seed": ' + b"9" * 5000 + b"}", "application/json", 400, "malformed_json"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b"null", "application/json", 422, "invalid_request"),
        (b"message=a", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"message": "a"}', "text/plain", 415, "unsupported_media_type"),
        (b'{"message": "' + b"a" * 9_000_000 + b'"}', "application/json", 413, "payload_too_large"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(
    api: httpx.Client, body: bytes, content_type: str, status: int, code: str
) -> None:
    answer = api.post("/v1/thumbnails", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_any_script_is_a_message(api: httpx.Client) -> None:
    for message in ("灯塔看守人的图书馆", "مكتبة حارس المنارة", "प्रकाशस्तंभ", "🎺🎉", "a\nb\tc", "x" * 16000):
        assert api.post("/v1/thumbnails", json={"message": message}).status_code == 202, message[:20]


class TestIdempotency:
    """The same request twice under one key is one job."""

    def test_the_first_answer_comes_again(self, api: httpx.Client) -> None:
        headers = {"Idempotency-Key": "order-17"}
        first = api.post("/v1/thumbnails", json=GOOD, headers=headers)
        second = api.post("/v1/thumbnails", json=GOOD, headers=headers)
        assert second.status_code == 202
        assert second.json() == first.json()
        assert second.headers["location"] == first.headers["location"]
        assert second.headers["idempotency-replayed"] == "true"
        assert len(api.get("/v1/jobs").json()["results"]) == 1

    def test_another_request_is_refused(self, api: httpx.Client) -> None:
        headers = {"Idempotency-Key": "order-17"}
        api.post("/v1/thumbnails", json=GOOD, headers=headers)
        answer = api.post("/v1/thumbnails", json=GOOD | {"count": 2}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    def test_at_the_same_moment_there_is_one_job(self, api: httpx.Client, server: Server) -> None:
        answers: list[httpx.Response] = []
        start = threading.Barrier(8)

        def send() -> None:
            start.wait()
            answers.append(
                httpx.post(
                    f"{server.url}/v1/thumbnails", json=GOOD, headers={"Idempotency-Key": "k"}, timeout=30
                )
            )

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["task_id"] for answer in answers}) == 1

    # SQLite has one writer at a time: there the second waits until the first has ended
    @pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
    def test_while_the_first_is_in_flight_the_second_is_told_so(
        self, api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backend.submit.IN_FLIGHT_AFTER_MS", 200)
        with server.resources.db.session_scope() as session:
            session.add(
                IdempotencyKey(
                    owner="local",
                    key="k",
                    fingerprint="",
                    job_id=UUID(int=1),
                    response={},
                    created_at=datetime.now(UTC),
                )
            )
            session.flush()
            answer = api.post("/v1/thumbnails", json=GOOD, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_flight")
        assert answer.headers["retry-after"]

    @pytest.mark.parametrize("key", [b"x" * 256, b"tab\there", b"caf\xe9"])
    def test_a_bad_key_is_refused(self, api: httpx.Client, key: bytes) -> None:
        answer = api.post("/v1/thumbnails", json=GOOD, headers={b"Idempotency-Key": key})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["parameter"] == "Idempotency-Key"


def test_without_the_broker_a_job_is_still_accepted(start_server: StartServer) -> None:
    # Given a server whose broker refuses connections
    gone = "redis://127.0.0.1:1/0"
    use_broker(gone)
    server = start_server(broker_url=gone, result_url=gone)
    # When a message is sent
    answer = httpx.post(f"{server.url}/v1/thumbnails", json=GOOD, timeout=30)
    # Then it is accepted, says what it waits for, and is left to the sweep
    assert answer.status_code == 202
    assert answer.elapsed.total_seconds() < 10
    job = httpx.get(server.url + answer.headers["location"], timeout=30).json()
    assert job["waiting_for"]["reason"] == "broker"
    with server.resources.db.read_scope() as session:
        assert [str(i) for i in queries.undispatched(session, datetime.now(UTC))] == [job["task_id"]]
    ready = httpx.get(f"{server.url}/readyz", timeout=30)
    assert ready.status_code == 503
    assert not ready.json()["checks"]["broker"]["ok"]
    assert ready.json()["checks"]["database"]["ok"]


def test_without_the_database_nothing_is_half_written(api: httpx.Client, server: Server) -> None:
    # Given a database that is away
    engine = server.resources.db.engine
    server.resources.db.engine = type(server.resources.db)("postgresql+psycopg://x@127.0.0.1:1/x").engine
    # When a message is sent, then the client is told to come again
    answer = api.post("/v1/thumbnails", json=GOOD)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    server.resources.db.engine = engine
    assert api.get("/v1/jobs").json()["results"] == []


def test_the_openapi_is_complete(api: httpx.Client) -> None:
    schema = api.get("/openapi.json").json()
    ids = [op["operationId"] for path in schema["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))
    assert {
        "create_thumbnails",
        "get_job",
        "list_jobs",
        "stream_job_events",
        "cancel_job",
        "retry_job",
    } <= set(ids)
    create = schema["paths"]["/v1/thumbnails"]["post"]
    assert set(create["responses"]) == {"202", "400", "401", "409", "413", "415", "422", "429", "503"}
    assert "application/problem+json" in create["responses"]["422"]["content"]
    assert "HTTPValidationError" not in json.dumps(schema)

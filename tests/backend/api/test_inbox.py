"""/v1/events: what happened elsewhere is taken, checked, done, listed; each is a job, too."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel, Field

from backend import keys, resources
from backend.api import inbox
from backend.jobs import store
from backend.jobs.faults import Fault
from backend.jobs.models import Job
from backend.pipelines import EVENTS, PIPELINES
from backend.pipelines.steps import Context, EventPipeline, Step
from backend.resources import Resources
from backend.steps import run_step
from contract.queues import CPU_QUEUES
from tests.backend.api.conftest import Server, StartServer
from tests.backend.api.test_jobs import now

TYPE = "customer_message.received"
MESSAGE = {"message": "My parcel has not arrived"}


class Order(BaseModel):
    number: int = Field(alias="no")


def _double(parts: Resources, context: Context[Order]) -> dict[str, Any]:
    return {"number": context.data.number * 2}


ORDERS = EventPipeline("orders", "order.placed", "s", "d", Order, (Step("double", _double),))


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second type of events."""
    monkeypatch.setitem(PIPELINES, "orders", ORDERS)
    monkeypatch.setitem(EVENTS, "order.placed", ORDERS)
    monkeypatch.setitem(inbox._BY_NAME, "orders", ORDERS)


def post(api: httpx.Client, event_type: str = TYPE, data: object = MESSAGE, **values: Any) -> httpx.Response:
    headers = values.pop("headers", None)
    return api.post("/v1/events", json={"type": event_type, "data": data} | values, headers=headers)


def accepted(api: httpx.Client, *given: Any, **values: Any) -> str:
    answer = post(api, *given, **values)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["event_id"])


def work(server: Server, monkeypatch: pytest.MonkeyPatch, steps: int = 9) -> None:
    """Does so many steps."""
    monkeypatch.setattr(resources, "current", lambda: server.resources)
    for _ in range(steps):
        message = _next(server)
        if message is None:
            return
        run_step.apply(kwargs=message)


def _next(server: Server) -> dict[str, Any] | None:
    with server.resources.celery.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for queue in CPU_QUEUES:
            if (message := channel.basic_get(queue, no_ack=True)) is not None:
                words: dict[str, Any] = message.decode()[1]
                return words
    return None


def test_an_event_is_taken_and_done(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an event that was taken
    answer = post(api, metadata={"ticket": "17"}, data=MESSAGE | {"from": "ann@example.com"})
    assert answer.status_code == 202
    event = answer.json()
    assert answer.headers["location"] == f"/v1/events/{event['event_id']}"
    assert (event["status"], event["type"], event["task_id"]) == ("pending", TYPE, event["event_id"])
    assert [(step["name"], step["status"]) for step in event["steps"]] == [
        ("classify", "pending"), ("draft_reply", "pending"), ("route", "pending"),
    ]  # fmt: skip
    assert event["data"] == MESSAGE | {"from": "ann@example.com", "subject": None, "channel": None}
    # When its first step is done
    work(server, monkeypatch, steps=1)
    answer = api.get(answer.headers["location"])
    event = answer.json()
    assert answer.headers["retry-after"] == "1"
    assert (event["status"], list(event["task_context"])) == ("in_progress", ["classify"])
    assert [step["status"] for step in event["steps"]] == ["completed", "in_progress", "pending"]
    assert event["started_at"] <= event["steps"][0]["completed_at"]
    # When all are
    work(server, monkeypatch)
    answer = api.get(f"/v1/events/{event['event_id']}")
    event = answer.json()
    assert "retry-after" not in answer.headers
    assert (event["status"], list(event["task_context"])) == (
        "completed",
        ["classify", "draft_reply", "route"],
    )
    assert event["output"] == event["task_context"]["route"]
    assert event["metadata"] == {"ticket": "17"}
    # Then the job says the same
    job = api.get(f"/v1/jobs/{event['event_id']}").json()
    assert (job["pipeline"], job["status"], job["output"]) == ("triage", "completed", event["output"])
    assert job["progress"] == {"completed": 3, "failed": 0, "total": 3, "fraction": 1.0}
    assert [
        one["task_id"] for one in api.get("/v1/jobs", params={"pipeline": "triage"}).json()["results"]
    ] == [event["event_id"]]


def test_an_unknown_type_is_told_which_there_are(api: httpx.Client, orders: None) -> None:
    answer = post(api, "order.lost")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"] == [
        {"pointer": "#/type", "parameter": None, "detail": f"known are: {TYPE}, order.placed"}
    ]


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({}, "#/data/message"),
        ({"message": " "}, "#/data/message"),
        ({"message": 1}, "#/data/message"),
        ({"message": "a\x00"}, "#/data"),
        ({"message": "a\x01"}, "#/data/message"),
        ({"message": "a" * 16_001}, "#/data/message"),
        ({"message": "a", "~/x": 1}, "#/data/~0~1x"),
        ({"message": "a", "from": ""}, "#/data/from"),
        ({"message": "a", "more": ["ä" * 100_000, "ö" * 100_000]}, "#/data"),
        ([], "#/data"),
        ("a", "#/data"),
        (None, "#/data"),
    ],
)
def test_data_are_checked_by_the_schema_of_their_type(api: httpx.Client, data: object, pointer: str) -> None:
    answer = post(api, data=data)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.get("/v1/events").json()["results"] == []


def test_what_looks_like_a_character_that_can_not_be_kept_is_kept(api: httpx.Client) -> None:
    # Given texts about JSON: a backslash and five characters, which are no U+0000
    given = {"message": "our form sends \\u0000, why?", "subject": "\\\\u0000"}
    answer = post(api, data=given, metadata={"\\u0000": "\\u0000"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["data"]["message"] == given["message"]
    # And the character itself is refused wherever it stands
    for metadata in ({"a\x00": 1}, {"a": ["\\\x00"]}):
        (error,) = post(api, metadata=metadata).json()["errors"]
        assert (error["pointer"], error["detail"]) == ("#/metadata", "must not hold the character U+0000")


def test_what_surrounds_them_is_checked_too(api: httpx.Client) -> None:
    assert post(api, count=4).json()["errors"][0]["pointer"] == "#/count"
    assert post(api, webhook={"url": "https://127.0.0.1/x"}).json()["errors"][0]["pointer"] == "#/webhook/url"
    assert api.post("/v1/events", content=b"{").status_code == 415
    big = b'{"type": "a", "data": {"a": "' + b"a" * (9 * 1024 * 1024)
    assert (
        api.post("/v1/events", content=big, headers={"content-type": "application/json"}).status_code == 413
    )


def test_a_schema_may_use_other_names(
    api: httpx.Client, server: Server, orders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = accepted(api, "order.placed", {"no": 21})
    work(server, monkeypatch)
    event = api.get(f"/v1/events/{event_id}").json()
    assert (event["data"], event["output"]) == ({"no": 21}, {"number": 42})


def test_the_same_request_again_is_the_same_event(api: httpx.Client) -> None:
    headers = {"idempotency-key": "ticket-17"}
    first = post(api, headers=headers)
    again = post(api, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = post(api, data={"message": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(api.get("/v1/events").json()["results"]) == 1


def test_events_are_listed_by_type_and_status_in_pages(
    api: httpx.Client, server: Server, orders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.post("/v1/prompts", json={"message": "no event"}).raise_for_status()
    while _next(server):
        pass
    order = accepted(api, "order.placed", {"no": 1})
    work(server, monkeypatch)
    messages = [accepted(api) for _ in range(3)]

    def listed(**params: str) -> list[str]:
        return [event["event_id"] for event in api.get("/v1/events", params=params).json()["results"]]

    assert listed() == [*reversed(messages), order]
    assert listed(type="order.placed") == [order]
    assert listed(type=TYPE) == list(reversed(messages))
    assert listed(status="completed") == [order]
    assert listed(status="completed", type=TYPE) == []
    page = api.get("/v1/events", params={"limit": 3}).json()
    assert [event["event_id"] for event in page["results"]] == list(reversed(messages))
    rest = api.get(page["next"]).json()
    assert ([event["event_id"] for event in rest["results"]], rest["next"]) == ([order], None)
    assert len(api.get(rest["previous"]).json()["results"]) == 3
    wrong = api.get("/v1/events", params={"type": "order.lost"})
    assert (wrong.status_code, wrong.json()["errors"][0]["parameter"]) == (422, "type")
    assert api.get("/v1/events", params={"cursor": "x"}).status_code == 422


def test_types_are_told_with_their_schemas(api: httpx.Client, orders: None) -> None:
    triage, order = api.get("/v1/event-types").json()["results"]
    assert (triage["type"], triage["steps"]) == (TYPE, ["classify", "draft_reply", "route"])
    assert triage["data_schema"]["required"] == ["message"]
    assert (order["type"], order["pipeline"]) == ("order.placed", "orders")
    assert list(order["data_schema"]["properties"]) == ["no"]


def test_nobody_sees_the_events_of_others(start_server: StartServer) -> None:
    server = start_server()
    people = {}
    for name in ("ann", "bob"):
        with server.resources.db.session_scope() as session:
            key = keys.create(session, name)[1]
        people[name] = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"})
    event_id = accepted(people["ann"])
    assert people["ann"].get(f"/v1/events/{event_id}").status_code == 200
    for path in (f"/v1/events/{event_id}", f"/v1/jobs/{event_id}", f"/status/{event_id}"):
        assert people["bob"].get(path).status_code == 404
        assert httpx.get(server.url + path).status_code == 401
    assert people["bob"].get("/v1/events").json()["results"] == []
    for path in ("/v1/events", "/v1/event-types"):
        assert httpx.get(server.url + path).status_code == 401
    for client in people.values():
        client.close()


def test_other_jobs_are_no_events(api: httpx.Client) -> None:
    job_id = api.post("/v1/prompts", json={"message": "a"}).json()["task_id"]
    assert api.get(f"/v1/events/{job_id}").status_code == 404
    assert api.get(f"/v1/events/{uuid4()}").status_code == 404


def test_submits_are_counted_as_all_others_are(start_server: StartServer) -> None:
    server = start_server(max_requests_per_minute=1)
    with httpx.Client(base_url=server.url) as client:
        answers = [post(client) for _ in range(3)]
    assert {answer.status_code for answer in answers} >= {202, 429}


def test_all_that_can_be_done_with_jobs_can_be_done_with_events(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an event one of whose steps has failed
    event_id = accepted(api)
    work(server, monkeypatch, steps=1)
    _fail(server, event_id)
    event = api.get(f"/v1/events/{event_id}").json()
    assert (event["error"]["code"], event["error"]["message"]) == ("step_failed", "m")
    assert [step["status"] for step in event["steps"]] == ["completed", "failed", "pending"]
    assert api.get(f"/v1/jobs/{event_id}").json()["progress"]["failed"] == 1
    # When it is run again
    while _next(server):
        pass
    assert api.post(f"/v1/jobs/{event_id}/retry").status_code == 202
    work(server, monkeypatch)
    assert api.get(f"/v1/events/{event_id}").json()["status"] == "completed"
    stream = api.get(f"/v1/jobs/{event_id}/events").text
    assert stream.count('"step":"classify"') == 1
    # And another one is canceled, and deleted
    other = accepted(api)
    assert api.post(f"/v1/jobs/{other}/cancel").json()["status"] == "canceled"
    event = api.get(f"/v1/events/{other}").json()
    assert [step["status"] for step in event["steps"]] == ["canceled"] * 3
    assert api.delete(f"/v1/jobs/{other}").status_code == 204
    assert api.get(f"/v1/events/{other}").status_code == 404


def _fail(server: Server, event_id: str) -> None:
    with server.resources.db.session_scope() as session:
        assert store.fail(session, UUID(event_id), Fault("step_failed", "m", retryable=False), now())


def test_what_a_former_version_of_the_pipeline_did_is_still_shown(api: httpx.Client, server: Server) -> None:
    event_id = accepted(api)
    with server.resources.db.session_scope() as session:
        job = store.lock(session, UUID(event_id))
        assert isinstance(job, Job)
        assert store.take_step(session, job, "guess", {"topic": "tea"}, now())
    event = api.get(f"/v1/events/{event_id}").json()
    assert event["task_context"] == {"guess": {"topic": "tea"}}
    assert [step["name"] for step in event["steps"]] == ["classify", "draft_reply", "route", "guess"]

"""A customer's message, through real processes: with the offline language model, and with one that hangs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery

from contract.queues import celery_settings
from tests.acceptance.brokers import BROKERS, Broker, own_broker
from tests.acceptance.stack import Stack, stack
from tests.backend.llm.scripted_server import ScriptedServer, hang, says, scripted_server

MESSAGE = "I was charged twice. This is unacceptable, refund me immediately!"
CLASSIFIED = {"topic": "billing", "urgency": "high", "sentiment": "negative", "language": "en"}
REPLY = {"subject": "Your payment", "body": "We are sorry, and look into it."}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with own_broker(request.param, request) as made:
        yield made


@pytest.fixture
def system(broker: Broker, postgres_url: str, tmp_path: Path) -> Iterator[Stack]:
    with stack(
        tmp_path,
        **broker.env,
        FANFARE_DATABASE_URL=postgres_url,
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_REDISPATCH_AFTER_S="4",
    ) as made:
        yield made


def start(system: Stack, **env: str) -> None:
    for kind in ("api", "worker"):
        system.start(kind, **env)
    system.wait_until_ready()


def post(system: Stack, **data: str) -> str:
    event = {"type": "customer_message.received", "data": {"message": MESSAGE} | data}
    answer = httpx.post(f"{system.url}/v1/events", json=event, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["event_id"])


def get(system: Stack, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{system.url}{path}", timeout=30).raise_for_status().json()
    return answer


def test_without_a_language_model_it_is_sorted_and_routed(system: Stack, broker: Broker) -> None:
    start(system, FANFARE_LLM="template")
    event_id = post(system, subject="My bill")
    assert system.ended(event_id)["status"] == "completed"
    event = get(system, f"/v1/events/{event_id}")
    assert list(event["task_context"]) == ["classify", "draft_reply", "route"]
    assert event["task_context"]["classify"] == CLASSIFIED
    routed = event["output"]
    assert (routed["team"], routed["answer_within_h"], routed["escalate"]) == ("finance", 2, True)
    assert routed["reply"]["body"].startswith("Thank you for your message about billing.")
    assert get(system, f"/status/{event_id}")["result"]["output"] == routed
    # And Celery's users read the same
    url = broker.env["FANFARE_BROKER_URL"]
    result_url = broker.env.get("FANFARE_RESULT_URL", url)
    app = Celery("outsider", set_as_current=False)
    app.conf.update(celery_settings(url, result_url))
    result = app.AsyncResult(event_id)
    assert (result.state, result.get(timeout=60)["output"]) == ("SUCCESS", routed)


def test_a_worker_that_is_killed_amid_a_step(system: Stack, server: ScriptedServer) -> None:
    # Given a language model that says what the message is about, and hangs over the reply
    server.script = [says(json.dumps(CLASSIFIED)), hang]
    server.otherwise = says(json.dumps(REPLY))
    start(system, FANFARE_LLM="openai", FANFARE_LLM_URL=server.url, FANFARE_LLM_TIMEOUT_S="300")
    event_id = post(system)
    system.until(lambda: len(server.seen) == 2)
    status = get(system, f"/status/{event_id}")
    assert status["status"] == "PROGRESS"
    assert (status["result"]["completed"], status["result"]["total"]) == (1, 3)
    # When its worker dies with it, and another comes
    system.parts[-1].kill()
    system.start("worker", FANFARE_LLM="openai", FANFARE_LLM_URL=server.url)
    # Then the reply is written by that one, and the message is not sorted again
    assert system.ended(event_id)["status"] == "completed"
    event = get(system, f"/v1/events/{event_id}")
    assert (event["task_context"]["classify"], event["output"]["reply"]) == (CLASSIFIED, REPLY)
    asked = ["You sort" in seen.said("system")[0] for seen in server.seen]
    assert asked == [True, False, False]
    types = [name for _, name in system.events(event_id)]
    assert types.count("job.completed") <= 1


def test_what_failed_is_run_again_from_there(system: Stack, server: ScriptedServer) -> None:
    server.script = [says(json.dumps(CLASSIFIED)), says("I'm sorry, I can't do that.")]
    server.otherwise = says(json.dumps(REPLY))
    start(system, FANFARE_LLM="openai", FANFARE_LLM_URL=server.url)
    event_id = post(system)
    assert system.ended(event_id)["error"]["code"] == "llm_refused"
    assert get(system, f"/status/{event_id}")["status"] == "FAILURE"
    steps = [step["status"] for step in get(system, f"/v1/events/{event_id}")["steps"]]
    assert steps == ["completed", "failed", "pending"]
    httpx.post(f"{system.url}/v1/jobs/{event_id}/retry", timeout=30).raise_for_status()
    assert system.ended(event_id)["status"] == "completed"
    assert len(server.seen) == 3

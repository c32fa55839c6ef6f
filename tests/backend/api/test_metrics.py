"""/metrics: what it says, to whom, and that it says it while services are away."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from backend.db import Database
from tests.backend.api.conftest import Server, StartServer
from tests.backend.api.test_access import key
from tests.backend.api.test_fleet import begin, say
from tests.backend.api.test_jobs import make, plan, save, submit

ROOT = Path(__file__).parents[3]
Labels = dict[str, str]


def samples(server: Server, **asked: Any) -> dict[str, list[tuple[Labels, float]]]:
    """All samples, by name."""
    server.app.state.demand._read_at = server.app.state.system._read_at = float("-inf")
    answer = httpx.get(f"{server.url}/metrics", timeout=20, **asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def one(server: Server, name: str, **labels: str) -> float:
    (value,) = [value for known, value in samples(server)[name] if labels.items() <= known.items()]
    return value


# -- the whole system --------------------------------------------------------------------------------------


def test_what_waits_is_the_same_from_every_process(
    start_server: StartServer, server: Server, api: httpx.Client
) -> None:
    other = start_server()
    job_id = submit(api, count=3)
    plan(server, job_id)
    begin(server, job_id, 0)
    for process in (server, other):
        assert one(process, "fanfare_images_waiting", model="sketch") == 2
        assert one(process, "fanfare_images_running", model="sketch") == 1
        assert 0 < one(process, "fanfare_images_oldest_wait_seconds", model="sketch") < 60


def test_a_model_that_nobody_wants_is_told_all_the_same(server: Server) -> None:
    assert one(server, "fanfare_images_waiting", model="sketch") == 0
    assert one(server, "fanfare_images_oldest_wait_seconds", model="sketch") == 0


def test_jobs_are_counted_by_status(server: Server, api: httpx.Client) -> None:
    done, canceled, begun = (submit(api) for _ in range(3))
    submit(api)
    for job_id in (done, begun):
        plan(server, job_id)
    for index in (0, 1):
        make(server, done, index)
    save(server, done, 0, 1)
    api.post(f"/v1/jobs/{canceled}/cancel")
    found = samples(server)
    assert found["fanfare_jobs_open"] == [({"status": "pending"}, 1), ({"status": "in_progress"}, 1)]
    ended = {labels["status"]: value for labels, value in found["fanfare_jobs_ended_last_hour"]}
    assert ended == {"completed": 1, "canceled": 1, "failed": 0, "partially_completed": 0}


def test_nodes_are_counted_by_model_and_state(server: Server) -> None:
    say(server, "n1", loaded=("sketch",))
    say(server, "n2", state="draining")
    found = samples(server)
    states = {labels["state"]: value for labels, value in found["fanfare_nodes"]}
    assert states == {"starting": 0, "ready": 1, "draining": 1}
    by_model = {labels["state"]: value for labels, value in found["fanfare_model_nodes"]}
    assert by_model == states
    assert found["fanfare_model_nodes_loaded"] == [({"model": "sketch"}, 1)]


def test_messages_that_wait_are_counted_by_queue(server: Server, api: httpx.Client) -> None:
    assert one(server, "fanfare_queue_messages", queue="llm") == 0
    submit(api)
    submit(api)
    assert one(server, "fanfare_queue_messages", queue="llm") == 2
    assert one(server, "fanfare_queue_messages", queue="gpu.sketch") == 0


def test_webhooks_that_are_due_are_counted(start_server: StartServer) -> None:
    server = start_server(webhook_allow_http=True, webhook_allow_private=True)
    assert samples(server)["fanfare_webhooks_due"] == [({}, 0)]
    with httpx.Client(base_url=server.url, timeout=20) as api:
        job_id = submit(api, webhook={"url": "http://127.0.0.1:8009/", "events": ["job.canceled"]})
        api.post(f"/v1/jobs/{job_id}/cancel")
    assert samples(server)["fanfare_webhooks_due"] == [({}, 1)]


def test_a_service_that_is_away_is_named_and_the_others_metrics_go_on(start_server: StartServer) -> None:
    server = start_server(metrics_token="only for metrics")  # which is no matter of the database
    ours = server.resources.db
    server.resources.db = Database("postgresql+psycopg://nobody@127.0.0.1:9/none")
    try:
        found = samples(server, headers={"Authorization": "Bearer only for metrics"})
    finally:
        server.resources.db.close()
        server.resources.db = ours
    up = {labels["service"]: value for labels, value in found["fanfare_service_up"]}
    assert up == {"database": 0, "broker": 1, "result_store": 1}
    assert "fanfare_images_waiting" not in found
    assert found["fanfare_queue_messages"]


def test_each_metric_is_told_in_the_documents(server: Server) -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("### Metrics\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(fanfare_[a-z_]+)`", section))
    known = {re.sub(r"_(bucket|count|sum)$", "", name) for name in samples(server)}
    ours = {name for name in known if name.startswith("fanfare_")}
    assert ours - {name for name in ours if name.endswith("_created")} == told


# -- this process ------------------------------------------------------------------------------------------


def test_requests_are_counted_by_the_template_of_their_route(server: Server, api: httpx.Client) -> None:
    job_id = submit(api)
    for _ in range(3):
        api.get(f"/v1/jobs/{job_id}")
    for path in ("/wp-login.php", "/.env"):
        api.get(path)
    api.request("BREW", "/v1/models")
    found = samples(server)
    counted = {tuple(labels.values()): value for labels, value in found["fanfare_http_requests_total"]}
    assert counted["POST", "/v1/thumbnails", "202"] == 1
    assert counted["GET", "/v1/jobs/{task_id}", "200"] == 3
    assert counted["GET", "other", "404"] == 2
    assert {method for method, _, _ in counted} == {"GET", "POST", "other"}
    took = {tuple(labels.values()): v for labels, v in found["fanfare_http_request_duration_seconds_count"]}
    assert took["GET", "/v1/jobs/{task_id}"] == 3
    assert str(job_id) not in str(found)


# -- who may read it ---------------------------------------------------------------------------------------


def status(server: Server, token: str = "", host: str = "203.0.113.9") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(server.app, client=(host, 1)).get("/metrics", headers=headers).status_code


def test_without_keys_this_machine_alone_may(server: Server) -> None:
    assert status(server, host="127.0.0.1") == 200
    assert status(server) == 401


def test_once_there_is_a_key_it_takes_one(server: Server) -> None:
    alice = key(server, "alice")["Authorization"].removeprefix("Bearer ")
    assert status(server, host="127.0.0.1") == 401
    assert status(server, alice) == 200
    assert status(server, "ff_0_0") == 401


def test_a_token_is_good_for_metrics_and_nothing_else(start_server: StartServer) -> None:
    server = start_server(metrics_token="only for metrics")
    alice = key(server, "alice")["Authorization"].removeprefix("Bearer ")
    assert status(server, "only for metrics") == 200
    assert status(server, host="127.0.0.1") == 401
    assert status(server, "wrong") == 401
    assert status(server, alice) == 401
    refused = httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer only for metrics"})
    assert refused.status_code == 401


@pytest.mark.parametrize(("setting", "expected"), [("open", 200), ("off", 404)])
def test_it_can_be_opened_and_turned_off(start_server: StartServer, setting: str, expected: int) -> None:
    server = start_server(metrics=setting)
    key(server, "alice")
    assert status(server) == expected

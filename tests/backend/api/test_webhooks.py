"""Endpoints, secrets and the log of deliveries, as their owner sees them; and as nobody else does."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backend.jobs import deliveries, endpoints
from backend.jobs.deliveries import Outcome
from backend.tasks import notify
from tests.backend.api.conftest import Server, StartServer
from tests.backend.api.test_access import key
from tests.backend.api.test_jobs import submit

ENDPOINTS, LOG = "/v1/webhooks/endpoints", "/v1/webhooks/deliveries"
URL = "http://127.0.0.1:8009/hook"


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Where loopback may be called."""
    return start_server(webhook_allow_private=True, webhook_allow_http=True)


def create(api: httpx.Client, **values: Any) -> Any:
    answer = api.post(ENDPOINTS, json={"url": URL} | values)
    assert answer.status_code == 201, answer.text
    return answer.json()


# -- endpoints ----------------------------------------------------------------------------------------


def test_an_endpoint_is_made_read_changed_and_deleted(api: httpx.Client) -> None:
    # Given one that is made
    answer = api.post(ENDPOINTS, json={"url": URL, "description": "the shop"})
    made, where = answer.json(), answer.headers["location"]
    assert answer.status_code == 201
    assert made["events"] == ["job.completed", "job.partially_completed", "job.failed", "job.canceled"]
    assert (made["enabled"], made["disabled_reason"], made["description"]) == (True, None, "the shop")
    assert api.get(where).json() == made
    assert api.get(ENDPOINTS).json() == {"results": [made]}
    # When some of it is changed, then the rest stays
    changed = api.patch(where, json={"events": ["image.generated"], "enabled": False}).json()
    assert changed == made | {
        "events": ["image.generated"], "enabled": False, "updated_at": changed["updated_at"],
    }  # fmt: skip
    assert api.patch(where, json={"url": f"{URL}/2", "enabled": None}).json()["url"] == f"{URL}/2"
    assert not api.get(where).json()["enabled"]
    # And when it is deleted, it is gone
    assert api.delete(where).status_code == 204
    assert api.get(where).status_code == api.delete(where).status_code == 404
    assert api.patch(where, json={}).status_code == 404
    assert api.get(ENDPOINTS).json() == {"results": []}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "https://10.0.0.1/x"}, "#/url"),
        ({"url": "https://169.254.169.254/latest"}, "#/url"),
        ({"url": "http://8.8.8.8/x"}, "#/url"),
        ({"url": "mailto:ann@example.com"}, "#/url"),  # no mail server is set
        ({"url": "https://8.8.8.8/", "events": []}, "#/events"),
        ({"url": "https://8.8.8.8/", "events": ["nothing"]}, "#/events/0"),
        ({"url": "https://8.8.8.8/", "description": "\x00"}, "#/description"),
        ({"url": "https://8.8.8.8/", "secret": "mine"}, "#/secret"),
        ({}, "#/url"),
    ],
)
def test_what_can_not_be_called_is_refused(
    start_server: StartServer, body: dict[str, Any], pointer: str
) -> None:
    server = start_server()
    with httpx.Client(base_url=server.url, timeout=20) as api:
        answer = api.post(ENDPOINTS, json=body)
        assert answer.status_code == 422, answer.text
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
        made = create(api, url="https://8.8.8.8/")
        if body:
            answer = api.patch(f"{ENDPOINTS}/{made['id']}", json=body)
            assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
        assert api.get(f"{ENDPOINTS}/{made['id']}").json() == made


def test_there_are_so_many_and_no_more(api: httpx.Client) -> None:
    for _ in range(endpoints.MOST_ENDPOINTS):
        last = create(api)
    answer = api.post(ENDPOINTS, json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    api.delete(f"{ENDPOINTS}/{last['id']}")
    create(api)


def test_one_that_was_disabled_by_its_receiver_says_so_and_can_be_enabled(
    api: httpx.Client, server: Server
) -> None:
    made = create(api)
    with server.resources.db.session_scope() as session:
        row = endpoints.lock(session, UUID(made["id"]))
        assert row is not None
        row.enabled, row.disabled_reason = False, notify.GONE
    where = f"{ENDPOINTS}/{made['id']}"
    assert api.get(where).json()["disabled_reason"] == "The receiver answered 410 Gone."
    enabled = api.patch(where, json={"enabled": True}).json()
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)


# -- secrets ------------------------------------------------------------------------------------------


def test_each_endpoint_has_a_secret_of_its_own_and_it_can_be_changed(api: httpx.Client) -> None:
    paths = [f"{ENDPOINTS}/{create(api)['id']}/secret" for _ in range(2)] + ["/v1/webhooks/secret"]
    before = [api.get(path).json() for path in paths]
    assert len({one["secret"] for one in before}) == 3
    assert {one["old_secret_until"] for one in before} == {None}
    for path, known in zip(paths, before, strict=True):
        rotated = api.post(f"{path}/rotate").json()
        assert rotated["secret"] != known["secret"]
        assert rotated == api.get(path).json()
        until = datetime.fromisoformat(rotated["old_secret_until"])
        assert 86_300 < (until - datetime.now(UTC)).total_seconds() < 86_500
    assert len({api.get(path).json()["secret"] for path in paths}) == 3
    assert api.post(f"{paths[0]}/rotate?grace_s=0").json()["old_secret_until"] is None
    assert api.post(f"{paths[0]}/rotate?grace_s=604801").status_code == 422


def test_a_secret_is_in_no_other_answer(api: httpx.Client) -> None:
    made = create(api)
    assert "whsec_" not in api.get(f"{ENDPOINTS}/{made['id']}").text + api.get(ENDPOINTS).text


# -- the log ------------------------------------------------------------------------------------------


def told(api: httpx.Client, count: int) -> list[str]:
    """Jobs that were canceled, oldest first: one delivery each, to one endpoint."""
    create(api, events=["job.canceled"])
    job_ids = [submit(api) for _ in range(count)]
    for job_id in job_ids:
        assert api.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return [str(job_id) for job_id in job_ids]


def test_the_log_is_read_in_pages(api: httpx.Client) -> None:
    # Given five deliveries
    job_ids = told(api, 5)
    # When they are read two by two
    pages = [api.get(LOG, params={"limit": 2}).json()]
    while pages[-1]["next"]:
        pages.append(api.get(pages[-1]["next"]).json())
    # Then each comes once, the newest first, and there is a way back
    assert [len(page["results"]) for page in pages] == [2, 2, 1]
    assert [one["task_id"] for page in pages for one in page["results"]] == job_ids[::-1]
    back = api.get(pages[2]["previous"]).json()
    assert back["results"] == pages[1]["results"]
    assert api.get(back["previous"]).json()["previous"] is None
    assert pages[0]["previous"] is None
    assert api.get(LOG, params={"cursor": "bm9uc2Vuc2U"}).status_code == 422


def test_the_log_is_filtered_by_job_endpoint_and_status(api: httpx.Client) -> None:
    job_ids = told(api, 2)
    (endpoint,) = api.get(ENDPOINTS).json()["results"]

    def found(**asked: str) -> int:
        return len(api.get(LOG, params=asked).json()["results"])

    assert found(task_id=job_ids[0]) == 1
    assert found(task_id=str(uuid4())) == 0
    assert found(endpoint_id=endpoint["id"]) == 2
    assert found(endpoint_id=str(uuid4())) == 0
    assert found(status="pending") == 2
    assert found(status="delivered") == found(status="failed") == 0
    assert api.get(LOG, params={"status": "lost"}).status_code == 422


def test_a_delivery_tells_each_attempt_and_can_be_asked_for_again(api: httpx.Client, server: Server) -> None:
    # Given one that was refused
    (job_id,) = told(api, 1)
    (listed,) = api.get(LOG).json()["results"]
    delivery_id = UUID(listed["id"])
    with server.resources.db.session_scope() as session:
        claim = deliveries.claim(session, delivery_id, datetime.now(UTC))
        assert claim is not None
        # Then it can't be asked for while it is in hand
        assert listed["webhook_id"].startswith(f"msg_{UUID(job_id).hex}_")
    assert api.post(f"{LOG}/{delivery_id}/redeliver").status_code == 409
    with server.resources.db.session_scope() as session:
        deliveries.abandon(session, claim.attempt_id, Outcome(410, notify.GONE, 12))
    told_of = api.get(f"{LOG}/{delivery_id}").json()
    assert (told_of["status"], told_of["attempts"], told_of["next_attempt_at"]) == ("failed", 1, None)
    (attempt,) = told_of["log"]
    assert attempt == {
        "started_at": attempt["started_at"], "status_code": 410, "reason": notify.GONE, "duration_ms": 12,
    }  # fmt: skip
    # And when it is asked for again, it is pending, and keeps its log
    answer = api.post(f"{LOG}/{delivery_id}/redeliver")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["attempts"]) == ("pending", 0)
    assert answer.json()["log"] == [attempt]
    # Until its job is deleted
    api.delete(f"/v1/jobs/{job_id}")
    assert api.get(f"{LOG}/{delivery_id}").status_code == 404
    assert api.post(f"{LOG}/{delivery_id}/redeliver").status_code == 404
    assert api.get(LOG).json()["results"] == []


# -- whose --------------------------------------------------------------------------------------------


def test_nobody_else_sees_any_of_it(api: httpx.Client, server: Server) -> None:
    # Given what belongs to alice
    alice, bob = key(server, "alice"), key(server, "bob")
    api.headers.update(alice)
    told(api, 1)
    (endpoint,) = api.get(ENDPOINTS).json()["results"]
    (delivery,) = api.get(LOG).json()["results"]
    secret = api.get(f"{ENDPOINTS}/{endpoint['id']}/secret").json()
    # When bob asks for it, then it isn't there
    api.headers.update(bob)
    assert api.get(ENDPOINTS).json()["results"] == api.get(LOG).json()["results"] == []
    of_endpoint, of_delivery = f"{ENDPOINTS}/{endpoint['id']}", f"{LOG}/{delivery['id']}"
    for method, path, body in (
        ("GET", of_endpoint, None), ("PATCH", of_endpoint, {"url": URL, "enabled": False}),
        ("DELETE", of_endpoint, None), ("GET", f"{of_endpoint}/secret", None),
        ("POST", f"{of_endpoint}/secret/rotate", None), ("GET", of_delivery, None),
        ("POST", f"{of_delivery}/redeliver", None),
    ):  # fmt: skip
        answer = api.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    # And alice's is as it was; hers alone are told of her jobs
    api.headers.update(alice)
    assert api.get(of_endpoint).json() == endpoint
    assert api.get(f"{of_endpoint}/secret").json() == secret
    api.headers.update(bob)
    told(api, 1)
    api.headers.update(alice)
    assert api.get(LOG).json()["results"] == [delivery]

"""Keys: each sees its own; without any, only this machine is served."""

import httpx
import pytest

from backend import keys
from tests.backend.api.conftest import Server, StartServer, announce


def key(server: Server, name: str) -> dict[str, str]:
    with server.resources.db.session_scope() as session:
        return {"Authorization": f"Bearer {keys.create(session, name)[1]}"}


def test_each_key_sees_its_own_jobs(api: httpx.Client, server: Server) -> None:
    alice, bob = key(server, "alice"), key(server, "bob")
    job = api.post("/v1/thumbnails", json={"message": "a fox"}, headers=alice).json()
    assert api.get(f"/v1/jobs/{job['task_id']}", headers=alice).status_code == 200
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ):
        answer = api.request(method, f"/v1/jobs/{job['task_id']}{path}", headers=bob)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert api.get("/v1/jobs", headers=bob).json()["results"] == []
    assert len(api.get("/v1/jobs", headers=alice).json()["results"]) == 1
    secrets = {api.get("/v1/webhooks/secret", headers=who).json()["secret"] for who in (alice, bob)}
    assert len(secrets) == 2


def test_two_owners_may_use_the_same_idempotency_key(api: httpx.Client, server: Server) -> None:
    made = {
        api.post(
            "/v1/thumbnails", json={"message": "a fox"}, headers=key(server, name) | {"Idempotency-Key": "1"}
        ).json()["task_id"]
        for name in ("alice", "bob")
    }
    assert len(made) == 2


def test_once_there_is_a_key_nobody_is_anonymous(start_server: StartServer) -> None:
    server = start_server()
    alice = key(server, "alice")
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answer = httpx.get(f"{server.url}/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    with server.resources.db.session_scope() as session:
        keys.revoke(session, alice["Authorization"].split("_")[1])
    assert httpx.get(f"{server.url}/v1/jobs", headers=alice).status_code == 401
    assert httpx.get(f"{server.url}/v1/jobs").status_code == 401
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_without_a_key_only_this_machine_is_served(start_server: StartServer) -> None:
    from fastapi.testclient import TestClient

    server = start_server()
    elsewhere = TestClient(server.app, client=("203.0.113.9", 1))
    assert elsewhere.get("/v1/jobs").status_code == 401
    server.settings.api_anonymous = True
    assert elsewhere.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("origin", ["https://app.example", "https://evil.example"])
def test_cors_is_by_setting(start_server: StartServer, origin: str) -> None:
    server = start_server(cors_origins=["https://app.example"])
    answer = httpx.options(
        f"{server.url}/v1/thumbnails",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
    )
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed == ("https://app.example" if origin == "https://app.example" else None)


def test_models_and_workers_are_those_that_announce_themselves(api: httpx.Client, server: Server) -> None:
    announce(server)
    models = api.get("/v1/models").json()["results"]
    assert [(m["name"], m["workers"], m["default"], m["can_set_title"]) for m in models] == [
        ("sketch", 1, True, True)
    ]
    workers = api.get("/v1/workers").json()["results"]
    assert [(w["name"], w["state"], w["models"], w["device"]["kind"]) for w in workers] == [
        ("n1", "ready", ["sketch"], "cpu")
    ]

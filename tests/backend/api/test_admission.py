"""What is let in: requests per minute, and images that are open at once."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
import redis

from backend import submit
from backend.api.rate_limit import RateLimiter
from backend.errors import RateLimited
from backend.jobs import queries, store
from backend.jobs.faults import Fault
from backend.tasks import gpu
from tests.backend.api.conftest import Server, StartServer, announce, use_broker
from tests.backend.api.test_access import key
from tests.backend.api.test_jobs import make, plan

GOOD = {"message": "a lighthouse"}


def send(server: Server, count: int, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/thumbnails", json=GOOD | {"count": count}, headers=headers, timeout=30
    )


def end(server: Server, answer: httpx.Response) -> None:
    with server.resources.db.session_scope() as session:
        fault = Fault("internal", "", retryable=True)
        assert store.fail(session, UUID(answer.json()["task_id"]), fault, datetime.now(UTC))


def check_refused(answer: httpx.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert 0 < int(answer.headers["retry-after"]) <= 120


def test_an_owner_has_so_many_images_open(start_server: StartServer) -> None:
    # Given an owner with as many images as are allowed
    server = start_server(max_open_images_per_owner=10)
    announce(server)
    alice, bob = key(server, "alice"), key(server, "bob")
    first = send(server, 6, alice)
    assert send(server, 4, alice).status_code == 202
    # Then one more is refused, to that owner alone
    check_refused(send(server, 1, alice), "quota")
    assert send(server, 10, bob).status_code == 202
    # And is let in once others are done
    end(server, first)
    assert send(server, 6, alice).status_code == 202


def test_all_together_have_so_many_images_open(start_server: StartServer) -> None:
    server = start_server(max_open_images=10)
    announce(server)
    first = send(server, 7, key(server, "alice"))
    bob = key(server, "bob")
    check_refused(send(server, 4, bob), "queue_full")
    assert send(server, 3, bob).status_code == 202
    end(server, first)
    assert send(server, 7, bob).status_code == 202


def test_many_at_the_same_moment_do_not_pass_the_limit(start_server: StartServer) -> None:
    server = start_server(max_open_images_per_owner=10, max_open_images=1000)
    announce(server)
    start, codes = threading.Barrier(12), []

    def submit() -> None:
        start.wait()
        codes.append(send(server, 2).status_code)

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [202] * 5 + [429] * 7


def test_what_is_refused_leaves_nothing_behind(start_server: StartServer) -> None:
    server = start_server(max_open_images_per_owner=1)
    announce(server)
    headers = {"Idempotency-Key": "k"}
    check_refused(send(server, 2, headers), "quota")
    assert httpx.get(f"{server.url}/v1/jobs").json()["results"] == []
    assert send(server, 1, headers).status_code == 202, "the key wasn't used up"
    assert send(server, 1, headers).headers["idempotency-replayed"] == "true", "an answer again is no new job"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestRequestsPerMinute:
    """For work alone: who follows a job may ask as often as he likes."""

    def test_too_many_are_refused(self, start_server: StartServer) -> None:
        server = start_server(max_requests_per_minute=3)
        announce(server)
        alice = key(server, "alice")
        jobs = [send(server, 1, alice) for _ in range(3)]
        assert [job.status_code for job in jobs] == [202] * 3
        check_refused(send(server, 1, alice), "rate_limited")
        url = server.url + jobs[0].headers["location"]
        end(server, jobs[0])
        check_refused(httpx.post(f"{url}/retry", headers=alice), "rate_limited")
        assert httpx.get(url, headers=alice).status_code == 200
        assert httpx.post(f"{url}/cancel", headers=alice).status_code == 200
        assert send(server, 1, key(server, "bob")).status_code == 202

    def test_without_the_store_all_are_let_in(self, start_server: StartServer) -> None:
        gone = "redis://127.0.0.1:1/0"
        use_broker(gone)
        server = start_server(broker_url=gone, result_url=gone, max_requests_per_minute=1)
        assert [send(server, 1).status_code for _ in range(2)] == [202, 202]


class TestSlidingMinute:
    """The limiter alone, over a real store, at moments of our choice."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        moment = [float(int(time.time()) // 60 * 60)]
        monkeypatch.setattr("backend.api.rate_limit.time.time", lambda: moment[0])
        return moment

    @pytest.fixture
    def limiter(self, redis_url: str) -> Iterator[RateLimiter]:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            yield RateLimiter(client, 10)

    def wait_s(self, limiter: RateLimiter) -> int:
        with pytest.raises(RateLimited) as caught:
            limiter.check("a")
        assert caught.value.retry_after_s
        return caught.value.retry_after_s

    @pytest.mark.parametrize("at", [0, 20, 59])
    def test_who_waits_as_long_as_is_said_is_let_in(
        self, limiter: RateLimiter, now: list[float], at: int
    ) -> None:
        now[0] += at
        for _ in range(10):
            limiter.check("a")
        limiter.check("b")
        for _ in range(12):  # what is refused doesn't count
            waited = self.wait_s(limiter)
            now[0] += waited
            limiter.check("a")

    def test_no_minute_has_many_more(self, limiter: RateLimiter, now: list[float]) -> None:
        taken: list[float] = []
        for _ in range(300):
            now[0] += 1
            try:
                limiter.check("a")
            except RateLimited:
                continue
            taken.append(now[0])
        assert max(sum(1 for other in taken if one <= other < one + 60) for one in taken) <= 12
        assert len(taken) >= 45


class TestCancelAfter:
    """Who doesn't want to wait for ever says so."""

    @pytest.mark.parametrize(
        ("given", "seconds"),
        [("1", 1), ("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("2m5s", 125)],
    )
    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_durations(self, server: Server, given: str, seconds: int) -> None:
        job = send(server, 1, {"Cancel-After": given}).json()
        took = datetime.fromisoformat(job["cancel_at"]) - datetime.fromisoformat(job["created_at"])
        assert took.total_seconds() == seconds

    @pytest.mark.parametrize("given", ["", "0", "-1", "1.5", "5 m", "5d", "1m1h", "9999999"])
    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_nonsense_is_refused(self, server: Server, given: str) -> None:
        answer = send(server, 1, {"Cancel-After": given})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["parameter"] == "Cancel-After"

    def test_the_job_ends_as_canceled(self, server: Server) -> None:
        # Given a job that may take a second, and one that may take all day
        soon, later = send(server, 1, {"Cancel-After": "1"}), send(server, 1)
        with server.resources.db.read_scope() as session:
            late = queries.to_cancel(session, datetime.now(UTC) + timedelta(hours=1))
        assert [str(job_id) for job_id in late] == [soon.json()["task_id"]]
        # When its time is over
        submit.cancel_late(server.resources, late[0])
        # Then it is canceled, also for its nodes, and never again looked for
        assert httpx.get(server.url + soon.headers["location"]).json()["status"] == "canceled"
        assert httpx.get(server.url + later.headers["location"]).json()["status"] == "pending"
        assert server.resources.signals.unwanted(late) == {late[0]: 1}
        with server.resources.db.read_scope() as session:
            assert queries.to_cancel(session, datetime.now(UTC) + timedelta(hours=1)) == []


def test_what_is_held_back_waits_for_the_quota(start_server: StartServer) -> None:
    # Given an owner who may have two images with the nodes at once
    server = start_server(max_running_images_per_owner=2)
    announce(server)
    first, second = (UUID(send(server, 2).json()["task_id"]) for _ in range(2))
    for job_id in (first, second):
        plan(server, job_id)
        gpu.release(server.resources, job_id)
    # Then the second job says that it waits for the quota, and the first doesn't
    waits = [httpx.get(f"{server.url}/v1/jobs/{job_id}").json()["waiting_for"] for job_id in (first, second)]
    assert waits[0] is None
    assert waits[1]["reason"] == "quota"
    assert "At most 2 of your images" in waits[1]["message"]
    # Until images of the first have ended
    for index in range(2):
        make(server, first, index)
    gpu.release_next(server.resources, "local")
    assert httpx.get(f"{server.url}/v1/jobs/{second}").json()["waiting_for"] is None

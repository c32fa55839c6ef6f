"""GET /v1/jobs/{id}/events: nothing is missed, nothing comes twice."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend.api import events
from backend.api.feed import Feed
from backend.jobs import ids
from contract.messages import ModelCard
from contract.signals import Signals, connect
from tests.backend.api.conftest import Server, announce
from tests.backend.api.test_jobs import make, plan, save, submit
from tests.services import RedisServer


def read(url: str, last: str | None = None) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """Events as (id, name, data), by the rules of the EventSource specification."""
    headers = {"Last-Event-ID": last} if last else {}
    with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if not line:
                if "data" in fields:
                    yield fields.get("id"), fields["event"], json.loads(fields["data"])
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value


def url_of(server: Server, job_id: UUID) -> str:
    return f"{server.url}/v1/jobs/{job_id}/events"


def test_a_stream_tells_it_all_and_ends(api: httpx.Client, server: Server) -> None:
    # Given a client that streams from the beginning
    job_id = submit(api)
    heard: list[tuple[str | None, str, dict[str, Any]]] = []
    thread = threading.Thread(target=lambda: heard.extend(read(url_of(server, job_id))))
    thread.start()
    # When the job goes its way
    time.sleep(0.3)
    plan(server, job_id)
    server.resources.signals.report_progress({job_id: {0: 0.5}})
    time.sleep(0.5)
    make(server, job_id, 0)
    time.sleep(0.5)
    save(server, job_id, 0)
    thread.join(15)
    assert not thread.is_alive(), "the stream ends with the job"
    # Then each kept event came once, in order, and progress came between
    kept = [(event_id, name, data) for event_id, name, data in heard if event_id]
    assert [int(event_id or 0) for event_id, _, _ in kept] == list(range(1, len(kept) + 1))
    assert [data["status"] for _, name, data in kept if name == "job"] == [
        "pending", "in_progress", "in_progress", "partially_completed",
    ]  # fmt: skip
    images = [(data["type"], data["index"], data["status"]) for _, name, data in kept if name == "image"]
    assert images == [
        ("image.generated", 0, "in_progress"),
        ("image.completed", 0, "completed"),
        ("image.failed", 1, "failed"),
    ]
    progress = [data for _, name, data in heard if name == "progress"]
    assert {"index": 0, "fraction": 0.5} in [one for data in progress for one in data["images"]]


@pytest.mark.parametrize("seen", [1, 3, 5])
def test_a_reconnect_misses_and_repeats_nothing(api: httpx.Client, server: Server, seen: int) -> None:
    job_id = submit(api)
    plan(server, job_id)
    make(server, job_id, 0)
    first = []
    for event in read(url_of(server, job_id)):
        if event[0]:
            first.append(int(event[0]))
        if len(first) == min(seen, 4):
            break  # the connection is cut
    save(server, job_id, 0)
    rest = [int(event[0]) for event in read(url_of(server, job_id), str(first[-1])) if event[0]]
    assert first + rest == list(range(1, 8))


def test_who_has_seen_all_is_told_to_stay_away(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    plan(server, job_id)
    save(server, job_id)
    last = [event[0] for event in read(url_of(server, job_id))][-1]
    answer = api.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(last)})
    assert answer.status_code == 204


class TestPreviews:
    """How unfinished images look by now: for the eye, for those who asked."""

    @pytest.fixture
    def job_id(self, api: httpx.Client, server: Server) -> UUID:
        """A planned job that asked for previews."""
        announce(server, ModelCard(name="sketch", engine="sketch", can_preview=True))
        server.resources.nodes._read_at = float("-inf")
        job_id = submit(api, preview=True)
        plan(server, job_id)
        return job_id

    def test_they_are_sent_while_an_image_is_made(self, server: Server, job_id: UUID) -> None:
        heard: list[tuple[str | None, str, dict[str, Any]]] = []
        thread = threading.Thread(target=lambda: heard.extend(read(url_of(server, job_id))))
        thread.start()
        signals = server.resources.signals
        # When a node shows an image twice, once more the same, and then stores it
        for jpeg in (b"first", b"second", b"second"):
            signals.report_preview(job_id, 0, jpeg)
            time.sleep(0.8)
        make(server, job_id, 0)
        time.sleep(0.5)
        signals.report_preview(job_id, 0, b"too late")
        signals.report_preview(job_id, 1, b"other")
        time.sleep(0.8)
        save(server, job_id, 0)
        thread.join(15)
        assert not thread.is_alive()
        # Then each new look came once, without an id, and none of an image that can be seen itself
        previews = [(event_id, data) for event_id, name, data in heard if name == "preview"]
        assert [(data["index"], base64.b64decode(data["data"])) for _, data in previews] == [
            (0, b"first"), (0, b"second"), (1, b"other"),
        ]  # fmt: skip
        assert {event_id for event_id, _ in previews} == {None}
        assert previews[0][1] == {
            "task_id": str(job_id), "image_id": str(ids.image_id(job_id, 0)), "index": 0,
            "content_type": "image/jpeg", "data": base64.b64encode(b"first").decode(),
        }  # fmt: skip
        # And the durable log has none of them
        assert [name for _, name, _ in read(url_of(server, job_id)) if name == "preview"] == []

    def test_who_reads_slowly_gets_the_newest(self, server: Server, job_id: UUID) -> None:
        async def read_slowly() -> list[bytes]:
            resources, feed = server.resources, Feed(server.resources)
            feed.start()
            stream = events._stream(
                resources, job_id, "local", feed, 9, events._read(resources, job_id, "local", 9)
            )
            sent = []
            try:
                # Given a reader who takes nothing for a while after the first look
                resources.signals.report_preview(job_id, 0, b"look 0")
                async for event in stream:
                    if b"event: preview" in event:
                        sent.append(event)
                        if len(sent) == 2:
                            return sent
                        for number in range(1, 4):
                            resources.signals.report_preview(job_id, 0, b"look %d" % number)
                            await asyncio.sleep(0.7)
            finally:
                await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
                await feed.stop()
            return sent

        # When it reads on, then it gets what is true by then, at once
        first, second = asyncio.run(asyncio.wait_for(read_slowly(), 10))
        assert base64.b64encode(b"look 0") in first
        assert base64.b64encode(b"look 3") in second

    def test_who_did_not_ask_is_sent_none(self, api: httpx.Client, server: Server) -> None:
        job_id = submit(api)
        plan(server, job_id)
        server.resources.signals.report_preview(job_id, 0, b"look")
        heard: list[str] = []
        thread = threading.Thread(
            target=lambda: heard.extend(name for _, name, _ in read(url_of(server, job_id)))
        )
        thread.start()
        time.sleep(1.2)
        save(server, job_id)
        thread.join(15)
        assert "preview" not in heard
        assert "job" in heard

    def test_without_the_result_store_the_stream_goes_on(
        self, server: Server, job_id: UUID, own_redis: RedisServer
    ) -> None:
        server.resources.signals = Signals(connect(own_redis.new_url()))
        server.resources.signals.report_preview(job_id, 0, b"look")
        names: list[str] = []
        thread = threading.Thread(
            target=lambda: names.extend(name for _, name, _ in read(url_of(server, job_id)))
        )
        thread.start()
        time.sleep(1)
        own_redis.service.stop()
        time.sleep(1)
        save(server, job_id)
        thread.join(15)
        assert not thread.is_alive()
        assert names.count("preview") == 1
        assert names[-1] == "job"


def test_a_deleted_job_ends_the_stream(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    thread = threading.Thread(target=lambda: list(read(url_of(server, job_id))))
    thread.start()
    time.sleep(0.5)
    api.delete(f"/v1/jobs/{job_id}")
    thread.join(10)
    assert not thread.is_alive()


def test_a_bad_id_is_explained(api: httpx.Client) -> None:
    answer = api.get(f"/v1/jobs/{submit(api)}/events", headers={"Last-Event-ID": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "Last-Event-ID")


def test_many_streams_wait_side_by_side(api: httpx.Client, server: Server) -> None:
    job_id = submit(api)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(sum(1 for e in read(url_of(server, job_id)) if e[0])))
        for _ in range(60)  # more than the server has threads
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert api.get("/healthz").elapsed.total_seconds() < 2
    plan(server, job_id)
    save(server, job_id)
    for thread in threads:
        thread.join(20)
    assert counts == [counts[0]] * 60

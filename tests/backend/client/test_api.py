"""The client against a real server that answers badly: patience, resumption, and plain errors."""

import json
import socket
from pathlib import Path

import pytest

from backend.client.answers import ImageUpdate, JobUpdate, ProgressUpdate, Update
from backend.client.api import ApiProblem, ApiUnreachable, Client, DownloadFailed
from tests.backend.client.scripted_api import TASK_ID, Reply, ScriptedApi, as_json, event, events, job

SUBMIT = "POST /v1/thumbnails"
JOB = f"GET /v1/jobs/{TASK_ID}"
EVENTS = f"GET /v1/jobs/{TASK_ID}/events"
FILE = "GET /file"


def kinds(updates: list[Update]) -> list[str]:
    return [
        update.job.status
        if isinstance(update, JobUpdate)
        else f"image {update.image.index} {update.image.status}"
        if isinstance(update, ImageUpdate)
        else f"progress {update.images[0].fraction}"
        for update in updates
    ]


# -- verbs --------------------------------------------------------------------------------------------


def test_submit_is_sent_again_under_the_same_idempotency_key(api: ScriptedApi, client: Client) -> None:
    # Given a server that is busy, then cuts the connection, then takes the job
    busy = as_json({"detail": "later"}, 503, **{"Retry-After": "0"})
    api.on(SUBMIT, busy, Reply(cut=True), as_json(job(), 202))

    # When a job is submitted
    submitted = client.submit({"message": "m", "count": 2})

    # Then it was sent three times, as one and the same, with the key
    requests = api.seen(SUBMIT)
    assert submitted.task_id == TASK_ID
    assert len(requests) == 3
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert json.loads(requests[0].body) == {"message": "m", "count": 2}
    assert requests[0].headers["Authorization"] == "Bearer ff_key"


def test_a_problem_is_told_with_the_fields_that_are_wrong_and_not_sent_again(
    api: ScriptedApi, client: Client
) -> None:
    problem = {"detail": "Not valid.", "errors": [{"pointer": "#/count", "detail": "must be at most 100"}]}
    api.on(SUBMIT, as_json(problem, 422))

    with pytest.raises(ApiProblem, match=r"Not valid\.\n  count: must be at most 100") as raised:
        client.submit({"message": "m", "count": 101})

    assert raised.value.http_status == 422
    assert len(api.seen(SUBMIT)) == 1


def test_a_server_that_stays_away_is_told_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ApiUnreachable, match=f"127.0.0.1:{port}"),
    ):
        client.job(TASK_ID)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"null"])
def test_something_else_that_answers_is_told_plainly(api: ScriptedApi, client: Client, body: bytes) -> None:
    api.on(JOB, Reply(200, body))

    with pytest.raises(ApiProblem, match="not Fanfare's API"):
        client.job(TASK_ID)


def test_an_error_page_of_a_proxy_is_told_plainly(api: ScriptedApi, client: Client) -> None:
    api.on(JOB, Reply(418, b"<html>"))

    with pytest.raises(ApiProblem, match="The server answered 418"):
        client.job(TASK_ID)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ApiUnreachable, match="begins with http"):
        Client("localhost:8000")


def test_wait_holds_on_until_the_job_ends(api: ScriptedApi, client: Client) -> None:
    api.on(JOB, as_json(job("pending")), as_json(job("in_progress")), as_json(job("completed")))

    ended = client.wait(TASK_ID, within_s=10)

    assert ended.status == "completed"
    assert api.seen(JOB)[0].headers["Prefer"].startswith("wait=")


def test_wait_gives_the_job_as_it_is_when_the_time_is_up(api: ScriptedApi, client: Client) -> None:
    api.on(JOB, as_json(job("in_progress")))

    assert client.wait(TASK_ID, within_s=0.3).status == "in_progress"


def test_a_job_keeps_all_that_the_server_said(api: ScriptedApi, client: Client) -> None:
    api.on(JOB, as_json(job()))

    assert client.job(TASK_ID).raw == job()


# -- following ----------------------------------------------------------------------------------------


def test_a_cut_stream_is_taken_up_where_it_broke_off(api: ScriptedApi, client: Client) -> None:
    # Given a stream that breaks off amid an event, and its rest
    api.on(
        EVENTS,
        events(
            event("job", job("in_progress"), 1),
            event("image", {"index": 0, "status": "in_progress", "prompt": "a"}, 2),
            'event: image\ndata: {"index": 0, "sta',
        ),
        events(
            event("progress", {"images": [{"index": 0, "fraction": 0.5}]}),
            event("image", {"index": 0, "status": "completed", "prompt": "a"}, 3),
            event("job", job("completed"), 4),
        ),
    )
    api.on(JOB, as_json(job("in_progress")))

    # When the job is followed
    updates = list(client.follow(TASK_ID))

    # Then each event came once, and the second request asked for what follows event 2
    assert kinds(updates) == [
        "in_progress", "image 0 in_progress", "progress 0.5", "image 0 completed", "completed",
    ]  # fmt: skip
    assert [request.headers.get("Last-Event-ID") for request in api.seen(EVENTS)] == [None, "2"]


def test_an_event_that_comes_twice_is_dropped(api: ScriptedApi, client: Client) -> None:
    started = event("image", {"index": 0, "status": "in_progress"}, 1)
    api.on(EVENTS, events(started), events(started, event("job", job("completed"), 2)))
    api.on(JOB, as_json(job("in_progress")))

    assert kinds(list(client.follow(TASK_ID))) == ["image 0 in_progress", "completed"]


def test_without_a_stream_the_job_is_polled(api: ScriptedApi, client: Client) -> None:
    api.on(EVENTS, Reply(cut=True))
    image = {"index": 0, "status": "completed"}
    api.on(JOB, *[as_json(job("in_progress"))] * 3, as_json(job("completed", [image])))

    updates = list(client.follow(TASK_ID))

    assert kinds(updates) == ["in_progress", "completed"]


def test_a_stream_that_says_nothing_more_ends_with_the_job(api: ScriptedApi, client: Client) -> None:
    api.on(EVENTS, Reply(204))
    api.on(JOB, as_json(job("failed")))

    assert kinds(list(client.follow(TASK_ID))) == ["failed"]


def test_a_stream_that_is_refused_for_good_is_no_reason_to_go_on(api: ScriptedApi, client: Client) -> None:
    api.on(EVENTS, as_json({"detail": "An API key is needed."}, 401))

    with pytest.raises(ApiProblem, match="key is needed"):
        list(client.follow(TASK_ID))


def test_events_of_another_kind_or_shape_are_passed_over(api: ScriptedApi, client: Client) -> None:
    api.on(
        EVENTS,
        events(
            event("news", {}, 1),
            "event: job\ndata: not json\nid: 2\n\n",
            "event: progress\ndata: []\n\n",
            event("job", job("completed"), 3),
        ),
    )

    assert kinds(list(client.follow(TASK_ID))) == ["completed"]


def test_progress_says_why_a_job_waits() -> None:
    update = ProgressUpdate.model_validate({"images": [], "waiting_for": {"reason": "cold_load"}})

    assert update.waiting_for
    assert update.waiting_for.reason == "cold_load"


# -- files --------------------------------------------------------------------------------------------


def test_a_file_is_saved_whole_and_the_key_stays_at_home(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    api.on(FILE, Reply(200, b"pixels"))

    client.download(f"{api.url}/file", tmp_path / "01.webp", size=6)

    assert (tmp_path / "01.webp").read_bytes() == b"pixels"
    assert "Authorization" not in api.seen(FILE)[0].headers


def test_a_download_that_breaks_off_is_begun_again(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    api.on(FILE, Reply(200, b"pix", promised=6), Reply(500), Reply(200, b"pix"), Reply(200, b"pixels"))

    client.download(f"{api.url}/file", tmp_path / "01.webp", size=6)

    assert (tmp_path / "01.webp").read_bytes() == b"pixels"
    assert len(api.seen(FILE)) == 4


@pytest.mark.parametrize(
    ("reply", "attempts"), [(Reply(403), 1), (Reply(200, b"pix"), 6), (Reply(cut=True), 6)]
)
def test_a_file_that_can_t_be_had_leaves_the_old_one_and_nothing_else(
    api: ScriptedApi, client: Client, tmp_path: Path, reply: Reply, attempts: int
) -> None:
    (tmp_path / "01.webp").write_bytes(b"old")
    api.on(FILE, reply)

    with pytest.raises(DownloadFailed):
        client.download(f"{api.url}/file", tmp_path / "01.webp", size=6)

    assert len(api.seen(FILE)) == attempts
    assert [path.name for path in tmp_path.iterdir()] == ["01.webp"]
    assert (tmp_path / "01.webp").read_bytes() == b"old"

"""POST /v1/uploads: files in the request, files to come, and what becomes of each."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image

from backend.errors import StorageUnavailable
from backend.jobs import ids, items, store
from backend.jobs.models import Status
from backend.tasks.items import Turn
from contract.queues import PROCESS_ITEMS
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.api.test_review import dispatched
from tests.backend.images.samples import corners, encode, quarters

GPS = Image.Exif()
GPS[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
PHOTO = encode(quarters(400, 300), "JPEG", exif=GPS.tobytes(), comment=b"<script>")

Files = list[tuple[str, tuple[str, bytes]]]


def files(*given: tuple[str, bytes]) -> Files:
    return [("files", one) for one in given]


def upload(api: httpx.Client, given: Files, **options: object) -> dict[str, Any]:
    data = {"request": json.dumps(options)} if options else None
    answer = api.post("/v1/uploads", files=given, data=data)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def work(server: Server, task_id: str) -> None:
    """What a worker does for the job, until nothing more is due."""
    job_id = UUID(task_id)
    with server.resources.db.read_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
    turn = Turn(server.resources, job_id, job.run, "the test")
    done: Mapping[UUID, items.Outcome] = {}
    assert turn.begin()
    while begun := turn.step(done, 4):
        done = {item.id: turn.process(item) for item in begun}


def fetched(url: str) -> Image.Image:
    answer = httpx.get(url, follow_redirects=True, timeout=20)
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.content))


def test_files_become_small_and_clean_images(api: httpx.Client, server: Server) -> None:
    # When a photograph that says where it was taken, and a drawing, are uploaded
    job = upload(api, files(("C:\\fakepath\\my shop.jpg", PHOTO), ("b.png", encode(quarters(64, 32)))))
    assert [item["filename"] for item in job["items"]] == ["my shop.jpg", "b.png"]
    assert (job["status"], job["progress"]["total"], job["images"]) == ("pending", 2, [])
    assert dispatched(server) == [PROCESS_ITEMS]
    work(server, job["task_id"])
    # Then each is an image, its thumbnail fits into the box, and nothing tells the place any more
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert (job["status"], job["progress"]["completed"]) == ("completed", 2)
    photo, drawing = job["items"]
    picture = fetched(photo["url"])
    assert (picture.format, picture.size, corners(picture)) == (
        "JPEG",
        (400, 300),
        ["red", "green", "blue", "yellow"],
    )
    assert not picture.getexif()
    assert "comment" not in picture.info
    assert photo["bytes"] < photo["original_bytes"] == len(PHOTO)
    [thumbnail] = photo["thumbnails"]
    assert (thumbnail["width"], thumbnail["height"]) == (200, 150)
    assert fetched(thumbnail["url"]).size == (200, 150)
    assert fetched(drawing["url"]).size == (64, 32)
    # And the file as it came is gone
    stored = {one.key for one in server.resources.storage.walk(ids.folder(UUID(job["task_id"])))}
    assert not [key for key in stored if "given" in key]
    # And with the job all of it
    assert api.delete(f"/v1/jobs/{job['task_id']}").status_code == 204
    assert not list(server.resources.storage.walk(""))
    assert httpx.get(photo["url"]).status_code == 404


def test_images_are_for_caches_and_their_urls_last(api: httpx.Client, server: Server) -> None:
    job = upload(api, files(("a.jpg", PHOTO)))
    work(server, job["task_id"])
    [item] = api.get(f"/v1/jobs/{job['task_id']}").json()["items"]
    answer = httpx.get(item["url"])
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert item["sha256"][:16] in item["url"]
    assert httpx.get(item["url"], headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    forged = item["url"][:-2] + ("AA" if not item["url"].endswith("AA") else "BB")
    assert httpx.get(forged).status_code == 403
    assert httpx.get(item["url"].partition("?")[0]).status_code == 403
    other = item["url"].replace("/v1/media/", "/v1/files/")
    assert httpx.get(other).status_code == 403


def test_one_bad_file_is_in_nobodys_way(api: httpx.Client, server: Server) -> None:
    given = files(("a.jpg", PHOTO), ("empty.jpg", b""), ("page.jpg", b"<html>"), ("cut.jpg", PHOTO[:500]))
    job = upload(api, given)
    assert job["items"][1]["error"]["code"] == "file_empty"
    work(server, job["task_id"])
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert job["status"] == "partially_completed"
    assert [item["status"] for item in job["items"]] == ["completed", "failed", "failed", "failed"]
    assert [item["error"]["code"] for item in job["items"][1:]] == [
        "file_empty", "image_unreadable", "image_unreadable",
    ]  # fmt: skip


def test_a_file_that_is_too_large_is_refused_alone(start_server: StartServer) -> None:
    server = start_server(max_file_bytes=5000)
    announce(server)
    with httpx.Client(base_url=server.url, timeout=20) as api:
        job = upload(api, files(("a.jpg", b"x" * 5001), ("b.png", encode(quarters(64, 32)))))
        work(server, job["task_id"])
        job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert [item["error"] and item["error"]["code"] for item in job["items"]] == ["file_too_large", None]


def test_all_of_it_together_is_bounded_too(start_server: StartServer) -> None:
    server = start_server(max_upload_request_bytes=10_000)
    pieces = iter([b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n", b"y" * 20_000])
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    declared = httpx.post(f"{server.url}/v1/uploads", files=files(("a", b"y" * 20_000)))
    streamed = httpx.post(f"{server.url}/v1/uploads", content=pieces, headers=head)
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert not list(server.resources.storage.walk(""))


def test_options_come_as_json_beside_the_files(api: httpx.Client, server: Server) -> None:
    job = upload(
        api, files(("a.jpg", PHOTO)), scale=0.5, thumbnail_sizes=[100, 50], metadata={"album": 7},
    )  # fmt: skip
    work(server, job["task_id"])
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    [item] = job["items"]
    assert (item["width"], item["height"], job["metadata"]) == (200, 150, {"album": 7})
    assert [one["width"] for one in item["thumbnails"]] == [50, 100]
    assert item["srcset"].count("w") >= 2


def test_options_may_come_as_a_blob(api: httpx.Client) -> None:
    """A page appends them so to its `FormData`, and a browser gives a blob the name of a file."""
    blob = ("request", ("blob", b'{"thumbnail_sizes": [64]}', "application/json"))

    job = api.post("/v1/uploads", files=[blob, *files(*[("a.jpg", b"x")] * 100)]).json()

    assert job["input"]["thumbnail_sizes"] == [64]
    assert len(job["items"]) == 100


@pytest.mark.parametrize(
    ("given", "data", "pointer"),
    [
        ([], {"request": "{}"}, "#/files"),
        (files(("a", b"x")), {"request": "[]"}, "#/request"),
        (files(("a", b"x")), {"request": "{"}, "#/request"),
        (files(("a", b"x")), {"request": '{"files": []}'}, "#/request"),
        (files(("a", b"x")), {"request": '{"metadata": {"a": "\\ud800"}}'}, "#/request"),
        (files(("a", b"x")), {"request": '{"metadata": {"a": NaN}}'}, "#/request"),
        (files(("a", b"x")), {"request": "[" * 10_000}, "#/request"),
        (files(("a", b"x")), {"colour": "red"}, "#/colour"),
        (files(("a", b"x")), {"request": '{"thumbnail_sizes": [1]}'}, "#/thumbnail_sizes/0"),
        (files(("a", b"x")), {"request": '{"scale": 2}'}, "#/scale"),
        (files(("a", b"x")), {"request": '{"scale": NaN}'}, "#/request"),
        (files(("a", b"x")), {"request": f'{{"metadata": {{"a": {"[" * 50 + "]" * 50}}}}}'}, "#/request"),
        (files(*[("a", b"x")] * 101), None, "#/files"),
        (files(*[("a", b"x")] * 102), None, "#/files"),
        ([("request", ("blob", b"\xff")), *files(("a", b"x"))], None, "#/request"),
        ([("request", ("blob", b" " * 65_537)), *files(("a", b"x"))], None, "#/request"),
    ],
)
def test_a_form_that_is_none(
    api: httpx.Client, server: Server, given: Files, data: dict[str, str] | None, pointer: str
) -> None:
    form = {"files": given} if given else {"files": [("request", (None, b"{}"))]}
    answer = api.post("/v1/uploads", data=data if given else None, **form)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not list(server.resources.storage.walk(""))


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ("multipart/form-data", b"x", 422),
        ("multipart/form-data; boundary=x", b"garbage", 422),
        ("multipart/form-data; boundary=x; charset=undefined", b"--x--", 415),
        ("multipart/form-data; boundary=x; charset=utf-8", b"--x--", 422),
        ("application/json", b"{", 400),
        ("application/json", b"{}", 422),
        ("application/json", b'{"files": [{"filename": ""}]}', 422),
    ],
)
def test_a_body_that_is_none(api: httpx.Client, content_type: str, body: bytes, status: int) -> None:
    answer = api.post("/v1/uploads", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text


def test_the_same_files_with_the_same_key_are_one_job(api: httpx.Client) -> None:
    head = {"Idempotency-Key": "album-7"}
    first = api.post("/v1/uploads", files=files(("a.jpg", PHOTO)), headers=head)
    again = api.post("/v1/uploads", files=files(("a.jpg", PHOTO)), headers=head)
    other = api.post("/v1/uploads", files=files(("a.jpg", PHOTO + b"x")), headers=head)
    assert first.json()["task_id"] == again.json()["task_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.status_code == 422


# -- files to come ------------------------------------------------------------------------------------


def test_large_files_are_sent_to_signed_urls(api: httpx.Client, server: Server) -> None:
    # Given a job whose files are to come
    asked = {"files": [{"filename": "a.jpg"}, {"filename": "b.jpg"}]}
    job = api.post("/v1/uploads", json=asked).json()
    assert job["waiting_for"]["reason"] == "upload"
    assert dispatched(server) == []
    # When one is sent, without a key, and the job continued
    target = job["items"][0]["upload"]
    put = httpx.put(target["url"], content=PHOTO, headers=target["headers"])
    assert put.status_code == 201, put.text
    answer = api.post(f"/v1/jobs/{job['task_id']}/continue", json={})
    assert answer.status_code == 202
    assert [item["upload"] for item in answer.json()["items"]] == [None, None]
    assert dispatched(server) == [PROCESS_ITEMS]
    work(server, job["task_id"])
    # Then what came is an image, and what did not says so, and may come yet
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert [item["status"] for item in job["items"]] == ["completed", "failed"]
    assert job["items"][1]["error"] == {
        "code": "not_uploaded", "message": "The file was not uploaded.", "retryable": True,
    }  # fmt: skip
    assert api.post(f"/v1/jobs/{job['task_id']}/continue", json={}).status_code == 409


def test_a_storage_that_can_not_sign_lets_nothing_in(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable

    monkeypatch.setattr(server.resources.storage, "client_upload_url", away)
    answer = api.post("/v1/uploads", json={"files": [{"filename": "a.jpg"}]})
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert api.get("/v1/jobs").json()["results"] == []


@pytest.mark.parametrize("body", [{}, {"content": b"{}", "headers": {"Content-Type": "application/json"}}])
def test_nothing_needs_to_be_said_to_continue_it(api: httpx.Client, body: dict[str, Any]) -> None:
    job = api.post("/v1/uploads", json={"files": [{"filename": "a.jpg"}]}).json()
    assert api.post(f"/v1/jobs/{job['task_id']}/continue", **body).status_code == 202


def test_what_is_said_must_be_json_all_the_same(api: httpx.Client) -> None:
    job = api.post("/v1/uploads", json={"files": [{"filename": "a.jpg"}]}).json()
    where = f"/v1/jobs/{job['task_id']}/continue"
    assert api.post(where, content=b"{}").status_code == 415
    assert api.post(where, content=iter([b"{}"])).status_code == 415
    assert api.post("/v1/thumbnails").status_code == 422


def test_prompts_are_no_way_to_continue_it(api: httpx.Client) -> None:
    job = api.post("/v1/uploads", json={"files": [{"filename": "a.jpg"}]}).json()
    answer = api.post(f"/v1/jobs/{job['task_id']}/continue", json={"prompts": ["a cat"]})
    assert answer.status_code == 422


# -- how it goes --------------------------------------------------------------------------------------


def test_what_failed_is_tried_again(api: httpx.Client, server: Server) -> None:
    job = api.post("/v1/uploads", json={"files": [{"filename": "a.jpg"}]}).json()
    api.post(f"/v1/jobs/{job['task_id']}/continue", json={})
    work(server, job["task_id"])
    failed = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "not_uploaded")
    httpx.put(job["items"][0]["upload"]["url"], content=PHOTO, headers=job["items"][0]["upload"]["headers"])
    assert api.post(f"/v1/jobs/{job['task_id']}/retry").status_code == 202
    work(server, job["task_id"])
    assert api.get(f"/v1/jobs/{job['task_id']}").json()["status"] == "completed"


def test_a_file_that_was_refused_is_not_asked_for_when_others_are_tried_again(
    api: httpx.Client, server: Server
) -> None:
    job = upload(api, files(("empty.jpg", b""), ("page.jpg", b"<html>")))
    work(server, job["task_id"])
    assert api.post(f"/v1/jobs/{job['task_id']}/retry").status_code == 202
    work(server, job["task_id"])
    codes = [item["error"]["code"] for item in api.get(f"/v1/jobs/{job['task_id']}").json()["items"]]
    assert codes == ["file_empty", "image_unreadable"]


def test_a_canceled_job_makes_nothing_more(api: httpx.Client, server: Server) -> None:
    job = upload(api, files(("a.jpg", PHOTO), ("b.jpg", PHOTO)))
    job_id = UUID(job["task_id"])
    turn = Turn(server.resources, job_id, 1, "the test")
    assert turn.begin()
    begun = turn.step({}, 1)
    outcome = turn.process(begun[0])
    assert api.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    assert turn.step({begun[0].id: outcome}, 4) == []
    assert turn.is_over
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert [item["status"] for item in job["items"]] == ["canceled", "canceled"]
    # And what was made meanwhile is not kept
    kept = [one.key for one in server.resources.storage.walk(ids.folder(job_id))]
    assert all("given" in key for key in kept), kept


def test_items_are_listed_in_pages(api: httpx.Client, server: Server) -> None:
    job = upload(api, files(*[(f"{index}.png", b"") for index in range(5)], ("good.jpg", PHOTO)))
    url, seen = f"/v1/jobs/{job['task_id']}/items?limit=2&status=failed", []
    while url:
        page = api.get(url).json()
        seen += [item["index"] for item in page["results"]]
        url = page["next"]
    assert seen == [0, 1, 2, 3, 4]
    assert api.get(job["urls"]["items"]).json()["results"][5]["status"] == "pending"
    assert api.get(f"/v1/jobs/{ids.new_job_id()}/items").status_code == 404
    with server.resources.db.read_scope() as session:
        assert items.counts(session, UUID(job["task_id"])) == {Status.FAILED: 5, Status.PENDING: 1}


def test_the_stream_tells_of_each_item(api: httpx.Client, server: Server) -> None:
    job = upload(api, files(("a.jpg", PHOTO), ("b.jpg", b"<html>")))
    work(server, job["task_id"])
    with api.stream("GET", f"/v1/jobs/{job['task_id']}/events") as response:
        text = response.read().decode()
    told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    about = {one["index"]: one for one in told if str(one.get("type", "")).startswith("item.")}
    assert (about[0]["type"], about[1]["type"]) == ("item.completed", "item.failed")
    assert about[0]["url"].startswith(server.url)
    assert about[1]["error"]["code"] == "image_unreadable"

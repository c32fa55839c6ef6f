"""POST /v1/products/{id}/images and /v1/products/images: pairs of input and output, noted as they finish."""

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from backend import resources
from backend.jobs import ids, store
from backend.jobs.faults import Fault
from backend.jobs.items import LOSSES
from backend.products import ids as product_ids
from backend.tasks import lifecycle
from backend.tasks.items import Turn
from backend.views import now
from contract.queues import PROCESS_ITEMS
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.api.test_review import dispatched
from tests.backend.api.test_uploads import fetched, work
from tests.backend.images.samples import corners, encode, quarters
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen

PICTURES = {"/front.jpg": encode(quarters(200, 100), "JPEG"), "/back.png": encode(quarters(80, 60))}


@pytest.fixture
def server(start_server: StartServer) -> Server:
    server = start_server(reference_allow_private=True, reference_allow_http=True)
    announce(server)
    return server


@pytest.fixture
def shop() -> Iterator[ScriptedServer]:
    def answer(seen: Seen) -> Answer:
        return Answer(body=PICTURES[seen.path]) if seen.path in PICTURES else Answer(404)

    with ScriptedServer() as it:
        it.script([answer])
        yield it


def product(api: httpx.Client, *urls: str, serial_number: str = "LAMP-17") -> dict[str, Any]:
    given = {"serial_number": serial_number, "name": "Lamp", "image_urls": list(urls)}
    answer = api.post("/v1/products", json=given)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def make(api: httpx.Client, where: str, **asked: Any) -> dict[str, Any]:
    answer = api.post(where, json=asked)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_each_url_becomes_an_image_of_half_the_size(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    # Given a product with two images and one that is gone
    urls = [f"{shop.url}{path}" for path in ("/front.jpg", "/back.png", "/gone.jpg")]
    known = product(api, *urls)
    # When its images are made
    job = make(api, f"/v1/products/{known['id']}/images")
    assert (job["pipeline"], job["input"]["scale"], job["progress"]["total"]) == ("product_images", 0.5, 3)
    assert dispatched(server) == [PROCESS_ITEMS]
    work(server, job["task_id"])
    # Then the job tells of each, and so does the product
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert job["status"] == "partially_completed"
    assert [(item["source_url"], item["status"]) for item in job["items"]] == [
        (urls[0], "completed"), (urls[1], "completed"), (urls[2], "failed"),
    ]  # fmt: skip
    front, back, gone = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert (front["input_url"], front["width"], front["height"], front["scale"]) == (urls[0], 100, 50, 0.5)
    assert front["output_url"] == job["items"][0]["url"]
    assert corners(fetched(front["output_url"])) == ["red", "green", "blue", "yellow"]
    assert fetched(back["output_url"]).size == (40, 30)
    assert (gone["status"], gone["error"]["code"], gone["output_url"]) == (
        "failed",
        "source_unavailable",
        None,
    )
    assert front["task_id"] == job["task_id"]
    # And images stay with their product when the job goes, and go with it
    assert api.delete(f"/v1/jobs/{job['task_id']}").status_code == 204
    assert httpx.get(front["output_url"]).status_code == 200
    assert api.delete(f"/v1/products/{known['id']}").status_code == 204
    assert not list(server.resources.storage.walk(""))


def test_urls_that_are_named_become_the_products_own(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    known, url = product(api), f"{shop.url}/front.jpg"
    job = make(
        api, f"/v1/products/{known['id']}/images", image_urls=[url, url], scale=0.25, thumbnail_sizes=[32]
    )
    assert job["progress"]["total"] == 1
    work(server, job["task_id"])
    [image] = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert (image["input_url"], image["width"]) == (url, 50)
    assert fetched(image["thumbnails"][0]["url"]).size == (32, 16)


def test_made_again_it_is_stored_once(api: httpx.Client, server: Server, shop: ScriptedServer) -> None:
    known = product(api, f"{shop.url}/front.jpg")
    for scale in (0.5, 0.5, 0.25):
        work(server, make(api, f"/v1/products/{known['id']}/images", scale=scale)["task_id"])
    [image] = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert image["width"] == 50
    assert len(list(server.resources.storage.walk("products/"))) == 1
    assert fetched(image["output_url"]).size == (50, 25)


def test_a_failure_leaves_what_was_made_before(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    known = product(api, f"{shop.url}/front.jpg")
    work(server, make(api, f"/v1/products/{known['id']}/images")["task_id"])
    shop.script([lambda _: Answer(404)])
    work(server, make(api, f"/v1/products/{known['id']}/images")["task_id"])
    [image] = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert (image["status"], image["error"]["code"]) == ("failed", "source_unavailable")
    assert fetched(image["output_url"]).size == (100, 50)


def test_what_fails_with_its_job_is_said_of_the_product(
    api: httpx.Client, server: Server, shop: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two products of a job that has made the first image, and is too late with two others
    first = product(api, f"{shop.url}/front.jpg", f"{shop.url}/back.png")
    second = product(api, f"{shop.url}/front.jpg", serial_number="2")
    other = product(api, f"{shop.url}/front.jpg", serial_number="3")
    job = make(api, "/v1/products/images", serial_numbers=["LAMP-17", "2"])
    turn = Turn(server.resources, UUID(job["task_id"]), 1, "the test")
    assert turn.begin()
    [item] = turn.step({}, 1)
    turn.step({item.id: turn.process(item)}, 1)
    monkeypatch.setattr(resources, "current", lambda: server.resources)
    lifecycle.fail(turn.job_id, Fault("deadline_exceeded", "The job was not done in time.", retryable=True))

    # Then each product says so, of these alone
    def told(made: dict[str, Any]) -> list[tuple[str, str | None]]:
        images = api.get(f"/v1/products/{made['id']}").json()["images"]
        return [(one["status"], one["error"] and one["error"]["code"]) for one in images]

    assert told(first) == [("completed", None), ("failed", "deadline_exceeded")]
    assert told(second) == [("failed", "deadline_exceeded")]
    assert told(other) == [("pending", None)]
    # And when the job is retried, what is made then is
    assert api.post(f"/v1/jobs/{job['task_id']}/retry").status_code == 202
    work(server, job["task_id"])
    assert told(first)[1:] + told(second) == [("completed", None)] * 2


def test_an_image_that_kills_its_workers_is_said_of_the_product(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    # Given an image over which each worker dies
    known = product(api, f"{shop.url}/front.jpg")
    job_id = UUID(make(api, f"/v1/products/{known['id']}/images")["task_id"])
    for _ in range(LOSSES):
        turn = Turn(server.resources, job_id, 1, "the test")
        assert turn.begin()
        assert turn.step({}, 4)
        with server.resources.db.session_scope() as session:
            job = store.lock(session, job_id)
            assert job is not None
            job.claimed_until = now() - timedelta(hours=1)
    last = Turn(server.resources, job_id, 1, "the test")
    assert last.begin()
    assert last.step({}, 4) == []
    [image] = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert (image["status"], image["error"]["code"]) == ("failed", "worker_lost")
    assert image["task_id"] == str(job_id)


def test_a_product_that_goes_meanwhile(api: httpx.Client, server: Server, shop: ScriptedServer) -> None:
    known = product(api, f"{shop.url}/front.jpg")
    job = make(api, f"/v1/products/{known['id']}/images")
    turn = Turn(server.resources, UUID(job["task_id"]), 1, "the test")
    assert turn.begin()
    [item] = turn.step({}, 1)
    outcome = turn.process(item)
    assert list(server.resources.storage.walk(product_ids.folder(UUID(known["id"]))))
    assert api.delete(f"/v1/products/{known['id']}").status_code == 204
    turn.step({item.id: outcome}, 1)
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "product_not_found")
    assert not list(server.resources.storage.walk("products/"))


def test_an_image_that_its_product_names_no_more(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    urls = [f"{shop.url}/front.jpg", f"{shop.url}/back.png"]
    known = product(api)
    job = make(api, f"/v1/products/{known['id']}/images", image_urls=urls)
    named = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert [image["input_url"] for image in named] == urls  # at once, in this order
    given = {"serial_number": "LAMP-17", "name": "Lamp", "image_urls": urls[1:]}
    assert api.put(f"/v1/products/{known['id']}", json=given).status_code == 200
    work(server, job["task_id"])
    job = api.get(f"/v1/jobs/{job['task_id']}").json()
    assert [item["status"] for item in job["items"]] == ["failed", "completed"]
    assert job["items"][0]["error"]["code"] == "product_not_found"
    [image] = api.get(f"/v1/products/{known['id']}").json()["images"]
    assert (image["input_url"], image["status"]) == (urls[1], "completed")
    assert len(list(server.resources.storage.walk("products/"))) == 1


def test_what_is_no_product_of_ones_own(api: httpx.Client, shop: ScriptedServer) -> None:
    urls = {"image_urls": [f"{shop.url}/front.jpg"]}
    assert api.post(f"/v1/products/{ids.new_id()}/images", json=urls).status_code == 404
    assert api.post("/v1/products/nonsense/images", json=urls).status_code == 404
    known = product(api)
    assert api.post(f"/v1/products/{known['id']}/images", json={}).status_code == 409
    assert api.post("/v1/products/images", json={}).status_code == 409
    for bad in (["ftp://x/a"], ["nonsense"], [], ["http://u:p@x/"]):
        answer = api.post(f"/v1/products/{known['id']}/images", json={"image_urls": bad})
        assert answer.status_code == 422, bad
    assert api.post(f"/v1/products/{known['id']}/images", json={"scale": 0}).status_code == 422


def test_a_whole_table_is_one_job(api: httpx.Client, server: Server, shop: ScriptedServer) -> None:
    # Given a table of which one row is bad
    table = f"""serial number,product name,input image URLs,output image URLs
A-1,One,{shop.url}/front.jpg {shop.url}/back.png,
A-2,Two,{shop.url}/gone.jpg,
A-3,,{shop.url}/front.jpg,
A-4,Four,{shop.url}/front.jpg,
"""
    # When it is imported with its images
    answer = api.post(
        "/v1/products/import", params={"images": True}, content=table, headers={"Content-Type": "text/csv"}
    )
    report = answer.json()
    assert (report["created"], report["failed_count"], report["failed"][0]["line"]) == (3, 1, 4)
    work(server, report["task_id"])
    # Then each good one has its output in the table that comes out
    rows = list(csv.DictReader(io.StringIO(api.get("/v1/products/export").content.decode("utf-8-sig"))))
    outputs = {row["serial number"]: row["output image URLs"].split() for row in rows}
    assert [len(outputs[name]) for name in ("A-1", "A-2", "A-4")] == [2, 0, 1]
    assert fetched(outputs["A-4"][0]).size == (100, 50)
    # And what was made is not made again, unless all is asked for
    missing = make(api, "/v1/products/images")
    assert [item["source_url"] for item in missing["items"]] == [f"{shop.url}/gone.jpg"]
    again = make(api, "/v1/products/images", which="all", serial_numbers=["A-1"])
    assert again["progress"]["total"] == 2
    same = api.post("/v1/products/import", content=table, headers={"Content-Type": "text/csv"}).json()
    assert (same["unchanged"], same["task_id"]) == (3, None)


def test_a_product_gets_no_more_images_than_may_be_said_of_it(api: httpx.Client) -> None:
    # Given a product with as many as it may have, less one
    made = product(api, *(f"https://example.com/{index}.jpg" for index in range(199)))
    where = f"/v1/products/{made['id']}/images"
    # Then one more is taken, and two are not
    answer = api.post(where, json={"image_urls": ["https://example.com/a.jpg", "https://example.com/b.jpg"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/image_urls")
    assert api.post(where, json={"image_urls": ["https://example.com/a.jpg"]}).status_code == 202


def test_what_another_job_makes_at_the_same_time_is_not_deleted(
    api: httpx.Client, server: Server, shop: ScriptedServer
) -> None:
    # Given an image that was made, and two jobs that make it anew: one smaller, one as it is
    made = product(api, f"{shop.url}/front.jpg")
    where = f"/v1/products/{made['id']}/images"
    work(server, make(api, where, scale=0.5)["task_id"])
    smaller, same = (UUID(make(api, where, scale=scale)["task_id"]) for scale in (0.25, 0.5))
    turns = [Turn(server.resources, job_id, 1, "the test") for job_id in (smaller, same)]
    assert all(turn.begin() for turn in turns)
    begun = [turn.step({}, 1)[0] for turn in turns]
    outcomes = [turn.process(item) for turn, item in zip(turns, begun, strict=True)]
    # When the smaller one is noted first, in place of what the other has stored once more
    for turn, item, outcome in zip(turns, begun, outcomes, strict=True):
        turn.step({item.id: outcome}, 1)
    # Then what is named is there
    [image] = api.get(f"/v1/products/{made['id']}").json()["images"]
    assert (image["width"], image["scale"]) == (100, 0.5)
    assert fetched(image["output_url"]).size == (100, 50)

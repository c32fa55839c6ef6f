"""One message in, N stored images out: through real processes, on both databases."""

import hashlib
import io
import shutil
import time
from typing import Any

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult
from PIL import Image
from standardwebhooks.webhooks import Webhook

from contract.queues import celery_settings
from tests.acceptance.stack import Stack
from tests.backend.notify.receiver import Receiver, receiver, status


def test_a_message_becomes_images(running: Stack) -> None:
    # When a message is sent
    task_id = running.submit(count=4, seed=42, thumbnail_sizes=[64, 32], output_format="png")
    job = running.ended(task_id)
    # Then N different images are there, whole, with all that a page needs
    assert job["status"] == "completed"
    assert job["progress"] == {"completed": 4, "failed": 0, "total": 4, "fraction": 1.0}
    assert len({image["prompt"] for image in job["images"]}) == 4
    assert [image["index"] for image in job["images"]] == [0, 1, 2, 3]
    digests = set()
    for image in job["images"]:
        data = httpx.get(image["url"]).raise_for_status().content
        digests.add(hashlib.sha256(data).hexdigest())
        assert len(data) == image["bytes"]
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.size) == ("PNG", (128, 128))
        assert picture.info["prompt"] == image["prompt"]
        assert picture.info["model"] == "sketch"
        assert picture.info["seed"] == str(image["seed"])
        assert [(t["width"], t["height"]) for t in sorted(image["thumbnails"], key=lambda t: t["width"])] == [
            (32, 32), (64, 64),
        ]  # fmt: skip
        for thumbnail in image["thumbnails"]:
            small = Image.open(io.BytesIO(httpx.get(thumbnail["url"]).raise_for_status().content))
            assert (small.format, small.size) == ("WEBP", (thumbnail["width"], thumbnail["height"]))
        assert image["placeholder"]["blurhash"]
        assert image["srcset"].count("w,") == 1
        assert image["timings"]["generate_ms"] is not None
        assert image["made_with"]
    assert len(digests) == 4


def test_the_same_seed_makes_the_same_images(running: Stack) -> None:
    def digests() -> list[str]:
        job = running.ended(running.submit(count=2, seed=7))
        return [hashlib.sha256(httpx.get(image["url"]).content).hexdigest() for image in job["images"]]

    assert digests() == digests()


def test_an_image_is_made_again(running: Stack) -> None:
    # Given an image of a job, with a title on it
    job = running.ended(running.submit(count=2, seed=9, title="Autumn sale", output_format="png"))
    original = job["images"][1]
    # When it is made again, by its id alone
    answer = httpx.post(f"{running.url}/v1/reproductions", json={"image_id": original["id"]}, timeout=30)
    again = running.ended(answer.raise_for_status().json()["task_id"])
    # Then its bytes are the same, and it says so
    assert again["status"] == "completed"
    (image,) = again["images"]
    assert image["reproduces"] == {
        "image_id": original["id"], "task_id": job["task_id"], "identical": True,
    }  # fmt: skip
    assert httpx.get(image["url"]).content == httpx.get(original["url"]).content
    assert len(image["thumbnails"]) == len(original["thumbnails"])
    # And a reproduction can be reproduced, also when the first is gone
    assert httpx.delete(f"{running.url}/v1/jobs/{job['task_id']}").status_code == 204
    answer = httpx.post(f"{running.url}/v1/reproductions", json={"image_id": image["id"]}, timeout=30)
    third = running.ended(answer.raise_for_status().json()["task_id"])
    assert third["images"][0]["reproduces"]["identical"] is True


def test_prompts_are_reviewed_before_images_are_made(running: Stack) -> None:
    # Given a job that stops when its prompts are written
    task_id = running.submit(count=3, review=True)
    job: dict[str, Any] = {}

    def waits() -> bool:
        job.update(httpx.get(f"{running.url}/v1/jobs/{task_id}").json())
        return job["waiting_for"] is not None and job["waiting_for"]["reason"] == "review"

    running.until(waits)
    first, _, third = (image["prompt"] for image in job["images"])
    # When one is dropped, one edited and two added
    chosen = [third, f"{first}, at night", "a red boat", "a green boat"]
    answer = httpx.post(f"{running.url}/v1/jobs/{task_id}/continue", json={"prompts": chosen}, timeout=30)
    assert answer.status_code == 202, answer.text
    # Then images are made of these, and of no others
    job = running.ended(task_id)
    assert (job["status"], [image["prompt"] for image in job["images"]]) == ("completed", chosen)
    assert all(httpx.get(image["url"]).content for image in job["images"])


def test_prompts_alone(running: Stack) -> None:
    answer = httpx.post(f"{running.url}/v1/prompts", json={"message": "a lighthouse", "count": 5}, timeout=30)
    task_id = answer.raise_for_status().json()["task_id"]
    job = running.ended(task_id)
    assert (job["status"], job["images"]) == ("completed", [])
    assert len(set(job["output"]["prompts"])) == 5
    assert [name for _, name in running.events(task_id)][-1] == "completed"


def test_celery_users_find_the_end_under_the_same_id(running: Stack) -> None:
    broker = running.env["FANFARE_BROKER_URL"]
    results = running.env.get("FANFARE_RESULT_URL", broker)
    app = Celery(set_as_current=False)
    app.conf.update(celery_settings(broker, results) | {"result_backend": results})
    task_id = running.submit(count=2)
    value: Any = AsyncResult(task_id, app=app).get(timeout=60)
    assert value["status"] == "completed"
    assert [image["index"] for image in value["images"]] == [0, 1]
    app.close()


def test_events_tell_the_whole_story(running: Stack) -> None:
    task_id = running.submit(count=3)
    running.ended(task_id)
    events = running.events(task_id)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    types = [name for _, name in events]
    assert types[0] == "pending"
    assert types[-1] == "completed"
    for name in ("image.started", "image.generated", "image.completed"):
        assert types.count(name) == 3, types


def test_a_log_without_warnings(running: Stack) -> None:
    running.ended(running.submit(count=1))
    for part in running.parts:
        text = part.log.read_text()
        for bad in ("Traceback", "DeprecationWarning", "ResourceWarning"):
            assert bad not in text, f"{part.log.name}\n{text[-3000:]}"


def test_one_bad_image_leaves_the_others_whole(running: Stack) -> None:
    # Given a job one of whose originals can't be stored
    running.parts[-1].process.send_signal(19)  # SIGSTOP: the node waits until the trap is set
    try:
        task_id = running.submit(count=3)
        trap = running.folder / "files" / "jobs" / task_id / "001"
        trap.parent.mkdir(parents=True, exist_ok=True)
        trap.symlink_to(trap)  # a loop: no file can be made below it
    finally:
        running.parts[-1].process.send_signal(18)
    job = running.ended(task_id)
    # Then the others are saved, and it says why and whether a retry makes sense
    assert job["status"] == "partially_completed"
    assert [image["status"] for image in job["images"]] == ["completed", "failed", "completed"]
    assert job["images"][1]["error"]["code"] == "upload_failed"
    assert job["images"][1]["error"]["retryable"]
    before = [image["url"].split("?")[0] for image in job["images"] if image["url"]]
    # And when the cause is mended, retry makes only the missing one
    trap.unlink()
    assert httpx.post(f"{running.url}/v1/jobs/{task_id}/retry").status_code == 202
    job = running.ended(task_id)
    assert job["status"] == "completed"
    assert [name for _, name in running.events(task_id)].count("image.started") == 4
    assert before == [job["images"][index]["url"].split("?")[0] for index in (0, 2)]


def test_an_original_that_vanished_is_told(running: Stack) -> None:
    task_id = running.submit(count=1)
    running.ended(task_id)
    shutil.rmtree(running.folder / "files" / "jobs" / task_id)
    job = running.job(task_id)
    assert httpx.get(job["images"][0]["url"]).status_code == 404


def test_a_webhook_is_delivered_and_verifies(running: Stack) -> None:
    with receiver() as got:
        assert isinstance(got, Receiver)
        hook = {"url": f"http://127.0.0.1:{got.port}/hook", "events": ["image.generated", "job.completed"]}
        task_id = running.submit(count=2, webhook=hook, metadata={"order": "17"})
        running.ended(task_id)
        running.until(lambda: len(got.received) >= 3)
        secret = httpx.get(f"{running.url}/v1/webhooks/secret").json()["secret"]
        bodies = [Webhook(secret).verify(one.body, one.headers) for one in got.received]
    types = sorted(body["type"] for body in bodies)
    assert types == ["image.generated", "image.generated", "job.completed"]
    end = next(body["data"] for body in bodies if body["type"] == "job.completed")
    assert end["task_id"] == task_id
    assert end["status"] == "completed"
    assert end["metadata"] == {"order": "17"}
    assert len({one.headers["webhook-id"] for one in got.received}) == 3


def test_an_endpoint_is_told_of_all_jobs_and_once_more_if_asked(running: Stack) -> None:
    # Given an endpoint, and a job without a webhook
    log, endpoints = (f"{running.url}/v1/webhooks/{name}" for name in ("deliveries", "endpoints"))
    with receiver() as got:
        wanted = {"url": f"http://127.0.0.1:{got.port}/all", "events": ["image.generated", "job.completed"]}
        endpoint = f"{endpoints}/{httpx.post(endpoints, json=wanted).json()['id']}"
        try:
            task_id = running.submit(count=2)
            running.ended(task_id)
            running.until(lambda: len(got.received) >= 3)
            # When the last one is asked for again
            told = {"task_id": task_id, "status": "delivered"}
            running.until(lambda: len(httpx.get(log, params=told).json()["results"]) == 3)
            (end, *_) = httpx.get(log, params=told).json()["results"]
            assert httpx.post(f"{log}/{end['id']}/redeliver").status_code == 202
            running.until(lambda: len(got.received) >= 4)
            secret = httpx.get(f"{endpoint}/secret").json()["secret"]
        finally:
            httpx.delete(endpoint)
        bodies = [Webhook(secret).verify(one.body, one.headers) for one in got.received]
    # Then it was told of everything that it asked for, and of that one twice
    types = sorted(body["type"] for body in bodies)
    assert types == sorted(["image.generated", "image.generated", "job.completed", end["type"]])
    assert {body["data"]["task_id"] for body in bodies} == {task_id}
    assert [one.headers["webhook-id"] for one in got.received].count(end["webhook_id"]) == 2
    running.until(lambda: len(httpx.get(f"{log}/{end['id']}").json()["log"]) == 2)


def test_a_webhook_that_is_not_taken_is_sent_again(running: Stack) -> None:
    # Given a receiver that is not well at first
    with receiver() as got:
        got.answer = status(500)
        task_id = running.submit(count=1, webhook={"url": f"http://127.0.0.1:{got.port}/hook"})
        running.ended(task_id)
        running.until(lambda: len(got.received) >= 1)
        # When it is well again
        got.answer = status(204)
        running.until(lambda: len(got.received) >= 2)
        time.sleep(2)
    # Then it was told once more, of the same event, and then left alone
    assert len(got.received) == 2
    assert got.received[0].headers["webhook-id"] == got.received[1].headers["webhook-id"]


def test_deleting_a_job_deletes_its_files(running: Stack) -> None:
    task_id = running.submit(count=2)
    running.ended(task_id)
    folder = running.folder / "files" / "jobs" / task_id
    assert list(folder.rglob("*.webp"))
    assert httpx.delete(f"{running.url}/v1/jobs/{task_id}").status_code == 204
    assert not list(folder.rglob("*.webp"))


def test_a_title_is_for_models_that_set_type(running: Stack) -> None:
    job = running.ended(running.submit(count=1, title="Herbstverkauf"))
    assert job["status"] == "completed"


def test_twenty_jobs_at_once(running: Stack) -> None:
    ids = [running.submit(count=3, message=f"message {number}") for number in range(12)]
    for task_id in ids:
        job = running.ended(task_id)
        assert job["status"] == "completed"
        assert job["progress"]["completed"] == 3


@pytest.mark.parametrize("count", [1, 25])
def test_few_and_many(running: Stack, count: int) -> None:
    job = running.ended(running.submit(count=count, width=64, height=64))
    assert job["progress"]["completed"] == count

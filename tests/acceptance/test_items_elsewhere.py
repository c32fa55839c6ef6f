"""Files from outside on the services of others: S3 or Supabase, Postgres, RabbitMQ; and each of them away."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult

from contract.queues import celery_settings
from tests.acceptance.brokers import shared_broker
from tests.acceptance.stack import Stack, stack
from tests.backend.images.samples import encode, quarters
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen
from tests.rabbitmq import RabbitServer
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from tests.services import PostgresServer, RedisServer, postgres_server
from tests.storage.conftest import s3_server, supabase
from tests.storage.supabase_server import SERVICE_KEY, SupabaseServer

__all__ = ["s3_server", "supabase"]

PICTURE = encode(quarters(200, 100), "JPEG")
QUICK = {  # to notice what is lost, and to be asked by tests
    "FANFARE_SWEEP_INTERVAL_S": "1",
    "FANFARE_REDISPATCH_AFTER_S": "2",
    "FANFARE_REFERENCE_ALLOW_PRIVATE": "true",
    "FANFARE_REFERENCE_ALLOW_HTTP": "true",
    "FANFARE_REFERENCE_TIMEOUT_S": "40",
}


@dataclass
class Elsewhere:
    """A running system and what it runs on, to be left whole."""

    system: Stack
    rabbitmq: RabbitServer
    postgres: PostgresServer
    s3: S3Server

    def stored(self) -> list[str]:
        """The names of all objects."""
        folder = self.s3.folder / "images"
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def elsewhere(
    request: pytest.FixtureRequest, shared_rabbitmq: RabbitServer, s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Elsewhere]:  # fmt: skip
    """RabbitMQ, a Postgres of its own, S3."""
    with postgres_server() as postgres, stack(
        tmp_path_factory.mktemp("elsewhere"),
        **shared_broker("rabbitmq", request),
        **QUICK,
        FANFARE_DATABASE_URL=postgres.url(postgres.create_database()),
        FANFARE_STORAGE_URL="s3://images/items",
        AWS_ENDPOINT_URL=s3_server.url,
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=SECRET_KEY,
    ) as made:  # fmt: skip
        made.start("api")
        made.start("worker")
        made.wait_until_ready()
        yield Elsewhere(made, shared_rabbitmq, postgres, s3_server)


@pytest.fixture
def shop() -> Iterator[ScriptedServer]:
    """Whose images products have."""
    with ScriptedServer() as server:
        server.script([Answer(body=PICTURE)])
        yield server


@contextmanager
def away(server: RabbitServer | PostgresServer | S3Server) -> Iterator[None]:
    """For the length of the block."""
    server.service.stop()
    try:
        yield
    finally:
        server.service.start()


def images_of(system: Stack, *urls: str) -> tuple[str, str]:
    """A new product, and a job that makes its images."""
    given = {"serial_number": f"P-{time.monotonic_ns()}", "name": "A lamp"}
    product = httpx.post(f"{system.url}/v1/products", json=given, timeout=30).raise_for_status().json()
    answer = httpx.post(
        f"{system.url}/v1/products/{product['id']}/images", json={"image_urls": urls}, timeout=30
    )
    assert answer.status_code == 202, answer.text
    return product["id"], answer.json()["task_id"]


def result_of(system: Stack, task_id: str) -> "AsyncResult[Any]":
    """What Celery's own users hold."""
    celery = Celery("a user's", set_as_current=False)
    broker = system.env["FANFARE_BROKER_URL"]
    celery.conf.update(celery_settings(broker, system.env.get("FANFARE_RESULT_URL", broker)))
    return AsyncResult(task_id, app=celery)


def times_asked(shop: ScriptedServer, seen: Seen) -> int:
    return sum(one.path == seen.path for one in shop.seen)


def completed(system: Stack, task_id: str) -> int:
    return int(system.job(task_id)["progress"]["completed"])


# -- the way of one file ------------------------------------------------------------------------------


def send_by_form(system: Stack) -> str:
    options = {"request": json.dumps({"thumbnail_sizes": [64]})}
    files = [("files", (f"{index}.jpg", PICTURE)) for index in range(2)]
    answer = httpx.post(f"{system.url}/v1/uploads", data=options, files=files, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


def send_by_url(system: Stack) -> str:
    asked = {"files": [{"filename": "a.jpg"}], "thumbnail_sizes": [64]}
    job = httpx.post(f"{system.url}/v1/uploads", json=asked, timeout=60).raise_for_status().json()
    upload = job["items"][0]["upload"]
    assert not upload["url"].startswith(system.url), "straight to the storage"
    assert upload["headers"]["Content-Type"] == "application/octet-stream"
    sent = httpx.put(upload["url"], content=PICTURE, headers=upload["headers"], timeout=60)
    assert sent.is_success, sent.text
    httpx.post(f"{system.url}/v1/jobs/{job['task_id']}/continue", json={}, timeout=60).raise_for_status()
    return str(job["task_id"])


def download(url: str, at: str) -> httpx.Response:
    """By a URL that lasts, from where the storage is."""
    answer = httpx.get(url, timeout=30)
    assert answer.status_code == 307, answer.text
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert answer.headers["Location"].startswith(at)
    assert httpx.get(url[:-1] + ("A" if url[-1] != "A" else "B"), timeout=30).status_code == 403
    return httpx.get(answer.headers["Location"], timeout=30).raise_for_status()


def assert_whole(job: dict[str, Any], at: str) -> None:
    """Each of its images is behind its URL, and so are their thumbnails."""
    assert job["status"] == "completed", job
    for item in job["items"]:
        image = download(item["url"], at)
        assert hashlib.sha256(image.content).hexdigest() == item["sha256"]
        asked = httpx.head(item["url"], timeout=30).raise_for_status()
        for told in (asked, image):
            assert told.headers["Content-Type"] == item["content_type"]
            assert told.headers["Content-Length"] == str(item["bytes"])
        for copy in item["thumbnails"]:
            assert len(download(copy["url"], at).content) == copy["bytes"]


def delete(system: Stack, path: str) -> None:
    assert httpx.delete(f"{system.url}/v1/{path}", timeout=30).status_code == 204


def test_files_go_to_s3(elsewhere: Elsewhere, shop: ScriptedServer) -> None:
    system = elsewhere.system
    # When files come in a form and by a signed URL, and others are fetched
    jobs = [system.ended(send(system)) for send in (send_by_form, send_by_url)]
    product, task_id = images_of(system, f"{shop.url}/a")
    # Then their images are in the bucket, and nothing else: the files themselves are gone
    for job in (*jobs, system.ended(task_id)):
        assert_whole(job, elsewhere.s3.url)
    assert len(elsewhere.stored()) == 2 * 2 + 2 + 1, elsewhere.stored()
    # And with what they belong to they go
    for job in jobs:
        delete(system, f"jobs/{job['task_id']}")
    delete(system, f"jobs/{task_id}")
    system.until(lambda: len(elsewhere.stored()) == 1)
    delete(system, f"products/{product}")
    system.until(lambda: elsewhere.stored() == [])


def test_files_go_to_supabase(
    shared_redis: RedisServer, supabase: SupabaseServer, pooled_url: str, shop: ScriptedServer, tmp_path: Path
) -> None:
    with stack(
        tmp_path,
        **QUICK,
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_DATABASE_URL=pooled_url,
        FANFARE_STORAGE_URL="supabase://images/items",
        SUPABASE_URL=supabase.url,
        SUPABASE_SERVICE_ROLE_KEY=SERVICE_KEY,
    ) as system:
        system.start("api")
        system.start("worker")
        system.wait_until_ready()
        jobs = [system.ended(send(system)) for send in (send_by_form, send_by_url)]
        product, task_id = images_of(system, f"{shop.url}/a")
        for job in (*jobs, system.ended(task_id)):
            assert_whole(job, supabase.url)
        assert len(supabase.objects) == 2 * 2 + 2 + 1, supabase.objects.keys()
        assert {one.cache_control for one in supabase.objects.values()} == {"max-age=31536000"}
        for job in jobs:
            delete(system, f"jobs/{job['task_id']}")
        delete(system, f"products/{product}")
        system.until(lambda: not supabase.objects)


# -- services that are away ---------------------------------------------------------------------------


def test_what_waits_for_a_moment_is_not_lost_on_rabbitmq(elsewhere: Elsewhere, shop: ScriptedServer) -> None:
    # Given servers that ask for patience, so that a job's next turn is due in some fraction of a second
    shop.script(
        [
            lambda seen: (
                Answer(body=PICTURE)
                if times_asked(shop, seen) > 2
                else Answer(503, headers={"Retry-After": "1"})
            )
        ]
    )
    tasks = [images_of(elsewhere.system, f"{shop.url}/{job}")[1] for job in range(4)]
    for task_id in tasks:
        job = elsewhere.system.ended(task_id)
        assert (job["status"], job["items"][0]["attempts"]) == ("completed", 3), elsewhere.system.logs()


def test_a_database_that_restarts_amid_a_turn(elsewhere: Elsewhere, shop: ScriptedServer) -> None:
    # Given a job whose images are being made
    system = elsewhere.system
    shop.script([Answer(body=PICTURE, wait_s=1)])
    _, task_id = images_of(system, *(f"{shop.url}/{index}" for index in range(12)))
    system.until(lambda: completed(system, task_id) > 0)
    # When the database restarts
    with away(elsewhere.postgres):
        time.sleep(2)  # of those in hand, some end meanwhile
    system.wait_until_ready()
    # Then nothing is made anew, and no worker blamed
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", 12)
    assert len(shop.seen) == 12
    assert {item["attempts"] for item in job["items"]} == {1}


def test_a_storage_that_is_away_amid_a_job(elsewhere: Elsewhere, shop: ScriptedServer) -> None:
    system = elsewhere.system
    shop.script([Answer(body=PICTURE, wait_s=0.5)])
    _, task_id = images_of(system, *(f"{shop.url}/{index}" for index in range(12)))
    system.until(lambda: completed(system, task_id) > 0)
    # When the storage goes away, then nothing fails, and no new files are taken
    with away(elsewhere.s3):
        made = completed(system, task_id)
        files = {"files": ("a.jpg", PICTURE)}
        refused = httpx.post(f"{system.url}/v1/uploads", files=files, timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
        system.until(lambda: len(shop.seen) == 12)
        assert system.job(task_id)["status"] == "in_progress"
    # And when it is back, the rest is made, as at the first attempt
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", 12)
    assert made < 12
    assert {item["attempts"] for item in job["items"]} == {1}


def test_a_broker_that_is_away_as_a_turn_ends(elsewhere: Elsewhere, shop: ScriptedServer) -> None:
    # Given a job with two files in hand, one of which it will have to wait for
    system = elsewhere.system

    is_away = threading.Event()

    def answer(seen: Seen) -> Answer:
        if seen.path != "/good":
            is_away.wait(30)
        is_late = seen.path == "/late" and times_asked(shop, seen) == 1
        return Answer(503) if is_late else Answer(body=PICTURE)

    shop.script([answer])
    _, task_id = images_of(system, f"{shop.url}/slow", f"{shop.url}/good", f"{shop.url}/late")
    system.until(lambda: len(shop.seen) == 3)
    # When the broker is away by then, so that nobody is told to go on
    with away(elsewhere.rabbitmq):
        is_away.set()
        system.until(lambda: completed(system, task_id) == 2)
        assert str(result_of(system, task_id).state) == "PROGRESS"
        time.sleep(1)
    # Then the sweep tells somebody
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"]) == ("completed", 3)
    result = result_of(system, task_id)
    system.until(lambda: str(result.state) == "SUCCESS")
    assert result.get(timeout=60)["completed"] == 3

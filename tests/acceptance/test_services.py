"""The main job over other services: S3, and a language model behind the OpenAI API, with its bad days."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult

from tests.acceptance.stack import Stack, stack
from tests.backend.llm.scripted_server import ScriptedServer, obedient, raw, refused, scripted_server
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from tests.services import RedisServer
from tests.storage.conftest import s3_server, supabase
from tests.storage.supabase_server import SERVICE_KEY, SupabaseServer, says

__all__ = ["s3_server", "supabase"]


@pytest.fixture
def llm() -> Iterator[ScriptedServer]:
    """A server that speaks the OpenAI API."""
    with scripted_server() as server:
        yield server


@pytest.fixture
def system(
    shared_redis: RedisServer, s3_server: S3Server, llm: ScriptedServer, tmp_path: Path
) -> Iterator[Stack]:
    """A system whose files are in S3 and whose prompts come from that server."""
    with stack(
        tmp_path,
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_STORAGE_URL="s3://images/acceptance",
        AWS_ENDPOINT_URL=s3_server.url,
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=SECRET_KEY,
        OPENAI_BASE_URL=llm.url,
        OPENAI_API_KEY="sk-test",
        FANFARE_LLM_TIMEOUT_S="5",
        FANFARE_SWEEP_INTERVAL_S="1",
    ) as made:
        made.start_all(FANFARE_NODE_ENGINES="sketch")
        yield made


def test_files_go_to_s3_and_prompts_come_from_the_model(system: Stack, llm: ScriptedServer) -> None:
    # Given a language model that does what it is told
    llm.otherwise = obedient
    # When a message is sent
    job = system.ended(system.submit(count=3))
    # Then its prompts are the images', and the images are in the bucket, behind signed URLs
    assert job["status"] == "completed", job
    assert llm.seen, "the model was asked"
    assert len({image["prompt"] for image in job["images"]}) == 3
    for image in job["images"]:
        answer = httpx.get(image["url"]).raise_for_status()
        assert len(answer.content) == image["bytes"]
        assert answer.headers["content-type"] == "image/webp"
        assert len(hashlib.sha256(answer.content).hexdigest()) == 64
        assert httpx.get(image["url"].replace("Signature=", "Signature=0")).status_code == 403
        assert httpx.get(image["thumbnails"][0]["url"]).status_code == 200
    # And deleting the job deletes them
    assert httpx.delete(f"{system.url}/v1/jobs/{job['task_id']}").status_code == 204
    assert httpx.get(job["images"][0]["url"]).status_code == 404


def test_a_model_that_fails_fails_the_job_and_retry_works(system: Stack, llm: ScriptedServer) -> None:
    # Given a language model that only answers nonsense
    llm.otherwise = raw(200, b"<html>hello</html>", "text/html")
    task_id = system.submit(count=2)
    # When it was asked a few times, then the job says so
    job = system.ended(task_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "llm_bad_answer")
    assert job["error"]["retryable"]
    assert job["images"] == []
    assert 1 < len(llm.seen) < 30
    assert celery_state(system, task_id) == "FAILURE"
    # And when the model is well again, retry makes the images under the same id
    llm.otherwise = obedient
    assert httpx.post(f"{system.url}/v1/jobs/{task_id}/retry").status_code == 202
    job = system.ended(task_id)
    assert (job["status"], job["progress"]["completed"], job["error"]) == ("completed", 2, None)
    assert celery_state(system, task_id) == "SUCCESS"


def celery_state(system: Stack, task_id: str) -> str:
    """What Celery's own users see under the client's id."""
    broker = system.env["FANFARE_BROKER_URL"]
    with Celery(set_as_current=False, broker=broker, backend=broker) as app:
        end = time.monotonic() + 60  # the database knows it first
        while (state := str(AsyncResult(task_id, app=app).state)) == "PENDING" and time.monotonic() < end:
            time.sleep(0.1)
        return state


def test_a_model_that_is_badly_configured_is_not_asked_again(system: Stack, llm: ScriptedServer) -> None:
    llm.otherwise = refused(401, "Incorrect API key sk-secret", code="invalid_api_key")
    job = system.ended(system.submit(count=2))
    assert (job["error"]["code"], job["error"]["retryable"]) == ("llm_unauthorized", False)
    assert "sk-" not in str(job), "no vendor text reaches a client"
    assert len(llm.seen) == 1


def test_all_of_it_is_on_supabase(
    shared_redis: RedisServer, supabase: SupabaseServer, pooled_url: str, tmp_path: Path
) -> None:
    # Given a system whose files are in a project of Supabase and whose database is behind its pooler
    with stack(
        tmp_path,
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_DATABASE_URL=pooled_url,
        FANFARE_STORAGE_URL="supabase://images/acceptance",
        SUPABASE_URL=supabase.url,
        SUPABASE_SERVICE_ROLE_KEY=SERVICE_KEY,
        FANFARE_SWEEP_INTERVAL_S="1",
    ) as system:
        system.start_all(FANFARE_NODE_ENGINES="sketch")
        # When a message is sent, on a day on which not every request succeeds
        supabase.faults = [says(503, b"<html>soon</html>"), None, None] * 4 + [None]
        job = system.ended(system.submit(count=3))
        # Then the images are in the bucket, behind signed URLs, and their copies beside them
        assert job["status"] == "completed", job
        assert len(job["images"]) == 3
        for image in job["images"]:
            answer = httpx.get(image["url"]).raise_for_status()
            assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]
            assert image["url"].startswith(f"{supabase.url}/storage/v1/object/sign/images/acceptance/jobs/")
            for copy in image["thumbnails"]:
                assert len(httpx.get(copy["url"]).raise_for_status().content) == copy["bytes"]
        assert {content.content_type for content in supabase.objects.values()} == {"image/webp"}
        # And who reads the job has at most one request made for all of its URLs
        supabase.seen = []
        assert system.job(job["task_id"])["images"][2]["url"]
        assert len([line for line in supabase.seen if line == "POST /storage/v1/object/sign/images"]) <= 1
        assert not [line for line in supabase.seen if "/object/sign/images/" in line]
        # And when the job is deleted, nothing is left of it
        assert httpx.delete(f"{system.url}/v1/jobs/{job['task_id']}").status_code == 204
        give_up = time.monotonic() + 30
        while supabase.objects:
            assert time.monotonic() < give_up, supabase.objects.keys()
            time.sleep(0.2)

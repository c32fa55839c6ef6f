"""POST /v1/reproductions: an image, made again from what is known of it."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from backend.errors import ObjectNotFound
from backend.jobs import ids, queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status
from backend.pipelines.reproductions import ReproductionsPipeline
from backend.tasks import gpu
from contract.messages import (
    FailureCode,
    GeneratedImage,
    GenerateImage,
    ImageFailure,
    LoraCard,
    LoraUse,
    ModelCard,
    Timings,
)
from contract.queues import MAP_PROMPTS
from tests.backend.api.conftest import Server, announce
from tests.backend.api.test_jobs import now, plan, submit
from tests.backend.conftest import report

CARD = ModelCard(
    name="sketch", engine="x", schedulers=("euler", "ddim"), loras=(LoraCard(name="ink"),), max_loras=1,
    tasks=("text-to-image", "image-to-image"), can_preview=True,
)  # fmt: skip
MADE_WITH = {"steps": 30, "guidance": 5.5, "scheduler": "ddim", "revision": "abc", "strength": 0.4}


def make(server: Server, job_id: UUID, sha256: str = "a" * 64, **made_with: Any) -> None:
    """A node stores the first image of the job."""
    with server.resources.db.session_scope() as session:
        report(
            session,
            GeneratedImage(
                job_id=job_id, image_id=ids.image_id(job_id, 0), index=0, run=1,
                key=ids.original_key(job_id, 0, "webp"), content_type="image/webp", bytes=8, sha256=sha256,
                width=1024, height=1024, seed=0, model="sketch", node="n1", attempts=1, timings=Timings(),
                made_with=made_with,
            ),
            now(),
        )  # fmt: skip


def made(api: httpx.Client, server: Server, made_with: dict[str, Any], **request: Any) -> UUID:
    """A job of one completed image."""
    announce(server, CARD)
    server.resources.nodes._read_at = float("-inf")
    job_id = submit(api, count=1, **request)
    plan(server, job_id)
    make(server, job_id, **made_with)
    complete(server, job_id)
    return job_id


def complete(server: Server, job_id: UUID, sha256: str = "a" * 64) -> None:
    done = store.SavedImage(0, 1, 8, sha256, "image/webp", 1024, 1024, [], "L00000fQfQfQ", "#112233")
    with server.resources.db.session_scope() as session:
        store.save(session, job_id, 1, [done], {}, now())


def again(api: httpx.Client, job_id: UUID, **request: Any) -> dict[str, Any]:
    """The job that makes its first image again."""
    answer = api.post("/v1/reproductions", json={"image_id": str(ids.image_id(job_id, 0))} | request)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def row(server: Server, job: dict[str, Any]) -> Job:
    with server.resources.db.read_scope() as session:
        found = queries.get(session, UUID(job["task_id"]))
    assert found is not None
    return found


def message_of(server: Server, job: dict[str, Any]) -> GenerateImage:
    """What its node gets."""
    found = row(server, job)
    return next(gpu.messages(server.resources, found, found.images[:1]))


def test_it_is_asked_for_as_it_was_made(api: httpx.Client, server: Server) -> None:
    # Given an image for which some was asked, and some was the model's default
    job_id = made(
        api, server, MADE_WITH, steps=20, negative_prompt="fog", loras=[{"name": "ink", "weight": 0.5}],
        reproducible=True, preview=True, width=512, height=768, output_format="png", thumbnail_sizes=[64],
    )  # fmt: skip
    # When it is made again
    job = again(api, job_id, metadata={"order": "17"})
    # Then its prompt is there at once, without a language model
    (image,) = job["images"]
    assert (image["prompt"], image["seed"], image["status"]) == ("prompt 0", 0, "pending")
    assert image["reproduces"] == {
        "image_id": str(ids.image_id(job_id, 0)), "task_id": str(job_id), "identical": None,
    }  # fmt: skip
    assert (job["pipeline"], job["metadata"], job["progress"]["total"]) == (
        "reproductions",
        {"order": "17"},
        1,
    )
    assert ReproductionsPipeline().canvas(row(server, job), planned=True).task == MAP_PROMPTS
    # And its node is told all of it: what was asked for, else what the defaults came to
    message = message_of(server, job)
    assert (message.steps, message.guidance, message.scheduler, message.revision) == (20, 5.5, "ddim", "abc")
    assert (message.width, message.height, message.output_format) == (512, 768, "png")
    assert (message.negative_prompt, message.loras) == ("fog", (LoraUse(name="ink", weight=0.5),))
    assert (message.prompt, message.model, message.seed) == ("prompt 0", "sketch", 0)
    assert (message.reproducible, message.preview) == (True, False)


@pytest.mark.parametrize(("sha256", "identical"), [("a" * 64, True), ("b" * 64, False)])
def test_it_tells_whether_it_is_the_same(
    api: httpx.Client, server: Server, sha256: str, identical: bool
) -> None:
    job = again(api, made(api, server, {}))
    job_id = UUID(job["task_id"])
    with server.resources.db.session_scope() as session:
        store.begin(session, job_id, now())
    make(server, job_id, sha256)
    complete(server, job_id, sha256)
    answer = api.get(f"/v1/jobs/{job_id}").json()
    assert answer["status"] == "completed"
    assert answer["images"][0]["reproduces"]["identical"] is identical


def test_an_image_of_before_can_be_made_again(api: httpx.Client, server: Server) -> None:
    # Given a job that was accepted before most of the settings were known
    job_id = made(api, server, {})
    with server.resources.db.session_scope() as session:
        old = session.get(Job, job_id)
        assert old is not None
        new = ("scheduler", "loras", "reproducible", "preview", "reference", "mask", "strength")
        old.input = {name: value for name, value in old.input.items() if name not in new}
    message = message_of(server, again(api, job_id))
    assert (message.steps, message.scheduler, message.loras, message.revision) == (None, None, (), None)
    assert not message.reproducible


def test_a_scheduler_that_cannot_be_asked_for_is_left_to_the_model(api: httpx.Client, server: Server) -> None:
    job = again(api, made(api, server, {"scheduler": "SomeScheduler"}))
    assert job["input"]["scheduler"] is None


def test_what_it_started_from_is_kept_with_it(api: httpx.Client, server: Server) -> None:
    # Given an image that was made from another
    first = made(api, server, {})
    job_id = made(api, server, MADE_WITH, reference={"image_id": str(ids.image_id(first, 0))})
    storage = server.resources.storage
    storage.put(ids.reference_key(job_id, "reference"), b"start", "image/png")
    # When it is made again, and the original's job is deleted
    job = again(api, job_id)
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    # Then the node gets the same start all the same
    message = message_of(server, job)
    assert (message.task, message.strength) == ("image-to-image", 0.4)
    key = ids.reference_key(UUID(job["task_id"]), "reference")
    assert storage.get(key, max_bytes=99) == b"start"
    # And it goes with the job
    assert api.delete(f"/v1/jobs/{job['task_id']}").status_code == 204
    with pytest.raises(ObjectNotFound):
        storage.get(key, max_bytes=99)


def test_what_it_started_from_may_be_gone(api: httpx.Client, server: Server) -> None:
    first = made(api, server, {})
    job_id = made(api, server, {}, reference={"image_id": str(ids.image_id(first, 0))})
    refused(api, str(ids.image_id(job_id, 0)), "what it started from is not stored any more")


def refused(api: httpx.Client, image_id: str, words: str) -> None:
    answer = api.post("/v1/reproductions", json={"image_id": image_id})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "#/image_id"
    assert words in error["detail"]


def test_only_completed_images_of_ones_own_are_made_again(api: httpx.Client, server: Server) -> None:
    none = "no completed image of yours has this id"
    refused(api, str(UUID(int=1)), none)
    refused(api, "x", "UUID")
    open_job = submit(api)
    plan(server, open_job)
    refused(api, str(ids.image_id(open_job, 0)), none)
    strangers = made(api, server, {})
    with server.resources.db.session_scope() as session:
        job = session.get(Job, strangers)
        assert job is not None
        job.owner = "somebody else"
    refused(api, str(ids.image_id(strangers, 0)), none)
    deleted = made(api, server, {})
    api.delete(f"/v1/jobs/{deleted}")
    refused(api, str(ids.image_id(deleted, 0)), none)


def test_a_model_that_makes_nothing_twice_is_not_asked(api: httpx.Client, server: Server) -> None:
    job_id = made(api, server, {})
    announce(server, ModelCard(name="sketch", engine="openai", can_reproduce=False))
    server.resources.nodes._read_at = float("-inf")
    refused(api, str(ids.image_id(job_id, 0)), "its model sketch can't make an image again")


def test_it_is_steered_like_other_jobs(api: httpx.Client, server: Server) -> None:
    original = made(api, server, {})
    # An idempotency key gives the first answer again
    request, headers = {"image_id": str(ids.image_id(original, 0))}, {"Idempotency-Key": "k"}
    first, second = (api.post("/v1/reproductions", json=request, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    job_id = UUID(first.json()["task_id"])
    listed = api.get("/v1/jobs", params={"pipeline": "reproductions"}).json()["results"]
    assert [job["task_id"] for job in listed] == [str(job_id)]
    # What failed is retried, with the same prompt
    with server.resources.db.session_scope() as session:
        store.begin(session, job_id, now())
        report(
            session,
            ImageFailure(
                job_id=job_id, image_id=ids.image_id(job_id, 0), index=0, run=1,
                code=FailureCode.MODEL_NOT_AVAILABLE, message="Another revision.", retryable=True, node="n1",
            ),
            now(),
        )  # fmt: skip
        store.fail(session, job_id, Fault("model_not_available", "Another revision.", retryable=True), now())
    job = api.post(f"/v1/jobs/{job_id}/retry").json()
    assert (job["status"], job["images"][0]["status"], job["images"][0]["prompt"]) == (
        "pending", "pending", "prompt 0",
    )  # fmt: skip
    # And it can be canceled and deleted
    assert api.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == Status.CANCELED
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204

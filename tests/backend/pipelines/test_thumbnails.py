"""The canvas of the main job: its shape, without running it."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery.canvas import _chain

from backend.errors import InvalidRequest
from backend.jobs import ids
from backend.jobs.models import ImageGeneration, Job, Status
from backend.nodes import Snapshot
from backend.pipelines.thumbnails import ThumbnailsPipeline, ThumbnailsRequest
from backend.resources import Resources
from backend.settings import Settings
from backend.tasks import gpu
from contract.messages import GenerateImage, LoraCard, LoraUse, ModelCard, SignedUpload
from contract.queues import FETCH_REFERENCES, GENERATE_PROMPTS, MAP_PROMPTS


class Storage:
    """Signs, and does nothing else."""

    def upload_url(self, key: str, **_: Any) -> SignedUpload:
        return SignedUpload(url=f"https://x/{key}", expires_at=datetime.now(UTC), max_bytes=1)


def resources(snapshot: Snapshot | None = None, **settings: Any) -> Resources:
    known = snapshot or Snapshot((), {"sketch": ModelCard(name="sketch", engine="sketch")}, reachable=True)
    parts = SimpleNamespace(
        settings=Settings(_env_file=None, **settings),
        nodes=SimpleNamespace(snapshot=lambda: known),
        storage=Storage(),
    )
    return cast("Resources", parts)


@pytest.fixture
def job() -> Job:
    prepared = ThumbnailsPipeline().prepare(ThumbnailsRequest(message="a fox"), resources(), owner="local")
    now = datetime.now(UTC)
    return Job(id=ids.new_job_id(), pipeline="thumbnails", run=2, input=prepared.input, deadline_at=now)


def test_a_new_job_begins_with_its_prompts(job: Job) -> None:
    canvas = ThumbnailsPipeline().canvas(job, planned=False)
    assert (canvas.task, canvas.kwargs) == (GENERATE_PROMPTS, {"job_id": str(job.id), "run": 2})


def test_a_retry_has_its_prompts(job: Job) -> None:
    assert ThumbnailsPipeline().canvas(job, planned=True).task == MAP_PROMPTS


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        (False, [FETCH_REFERENCES, GENERATE_PROMPTS]),
        (True, [FETCH_REFERENCES, MAP_PROMPTS]),
    ],
)
def test_references_are_fetched_before_all_else(job: Job, planned: bool, expected: list[str]) -> None:
    job.input["reference"] = {"url": "https://example.com/a.png"}
    canvas = ThumbnailsPipeline().canvas(job, planned=planned)
    assert isinstance(canvas, _chain)
    assert [task.task for task in canvas.tasks] == expected


def test_the_fan_out_is_one_clone_per_prompt(job: Job) -> None:
    images = [
        ImageGeneration(
            id=ids.image_id(job.id, index), job_id=job.id, index=index, run=2, prompt=f"prompt {index}",
            model="flux", seed=index, status=Status.PENDING,
        )
        for index in range(3)
    ]  # fmt: skip
    clones = list(gpu.messages(resources(), job, images))
    assert [clone.prompt for clone in clones] == ["prompt 0", "prompt 1", "prompt 2"]
    assert [(clone.image_id, clone.index, clone.run) for clone in clones] == [
        (ids.image_id(job.id, index), index, 2) for index in range(3)
    ]
    assert len(clones[0].model_dump_json()) < 2000, "ids and URLs, never bytes"


def test_defaults_are_the_models_own() -> None:
    card = ModelCard(name="wide", engine="x", default_width=1344, default_height=768)
    parts = resources(Snapshot((), {"wide": card}, reachable=True))
    prepared = ThumbnailsPipeline().prepare(
        ThumbnailsRequest(message="a", model="wide"), parts, owner="local"
    )
    assert (prepared.input["width"], prepared.input["height"]) == (1344, 768)


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({"width": 32 * 8}, "#/width"),
        ({"height": 1032}, "#/height"),
        ({"steps": 9}, "#/steps"),
        ({"title": "x"}, "#/title"),
        ({"count": 51}, "#/count"),
        ({"width": 2048}, "#/width"),
        ({"height": 2048}, "#/height"),
        ({"negative_prompt": "fog"}, "#/negative_prompt"),
        ({"reproducible": True}, "#/reproducible"),
        ({"preview": True}, "#/preview"),
        ({"scheduler": "euler"}, "#/scheduler"),
        ({"loras": [{"name": "ink"}]}, "#/loras/0/name"),
    ],
)
def test_limits_are_the_models_own(request_: dict[str, Any], pointer: str) -> None:
    card = ModelCard(
        name="m", engine="x", min_size=512, max_size=2048, size_multiple=16, max_steps=8,
        max_pixels=1024 * 1536, can_negative_prompt=False, can_reproduce=False,
    )  # fmt: skip
    parts = resources(Snapshot((), {"m": card}, reachable=True), max_count=50)
    with pytest.raises(InvalidRequest) as caught:
        ThumbnailsPipeline().prepare(
            ThumbnailsRequest(message="a", model="m", **request_), parts, owner="local"
        )
    assert [error.pointer for error in caught.value.errors] == [pointer]


CARD = ModelCard(
    name="able", engine="x", schedulers=("euler", "dpm++"), max_loras=1, can_preview=True,
    loras=(LoraCard(name="ink", default_weight=0.7), LoraCard(name="clay")),
)  # fmt: skip


def test_what_a_card_allows_is_passed_on_to_the_node() -> None:
    # Given a request that uses all that the card offers
    parts = resources(Snapshot((), {"able": CARD}, reachable=True))
    request = ThumbnailsRequest.model_validate(
        {"message": "a", "model": "able", "scheduler": "euler", "loras": [{"name": "ink"}],
         "reproducible": True, "preview": True}
    )  # fmt: skip
    # When it is prepared, then the card's own weight is filled in
    prepared = ThumbnailsPipeline().prepare(request, parts, owner="local")
    assert prepared.input["loras"] == [{"name": "ink", "weight": 0.7}]
    # And the node is told all of it
    message = message_of(parts, prepared.input)
    assert message.loras == (LoraUse(name="ink", weight=0.7),)
    assert (message.scheduler, message.reproducible, message.preview) == ("euler", True, True)


def test_a_weight_that_is_given_stands() -> None:
    parts = resources(Snapshot((), {"able": CARD}, reachable=True))
    request = ThumbnailsRequest.model_validate(
        {"message": "a", "model": "able", "loras": [{"name": "ink", "weight": 0}]}
    )
    prepared = ThumbnailsPipeline().prepare(request, parts, owner="local")
    assert prepared.input["loras"] == [{"name": "ink", "weight": 0}]


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        ({"scheduler": "eulr"}, "unknown scheduler; known for able are: dpm++, euler"),
        ({"loras": [{"name": "inc"}]}, "unknown LoRA; known for able are: clay, ink"),
        ({"loras": [{"name": "ink"}, {"name": "clay"}]}, "able takes at most 1 at once"),
    ],
)
def test_what_is_unknown_lists_the_known(request_: dict[str, Any], detail: str) -> None:
    parts = resources(Snapshot((), {"able": CARD}, reachable=True))
    request = ThumbnailsRequest.model_validate({"message": "a", "model": "able"} | request_)
    with pytest.raises(InvalidRequest) as caught:
        ThumbnailsPipeline().prepare(request, parts, owner="local")
    assert [error.detail for error in caught.value.errors] == [detail]


def test_jobs_of_before_are_still_made(job: Job) -> None:
    # Given the input of a job that was accepted before these fields were known
    known = {"message", "count", "model", "width", "height", "steps", "guidance", "negative_prompt", "title",
             "seed", "output_format", "thumbnail_sizes"}  # fmt: skip
    message = message_of(resources(), {name: job.input[name] for name in known})
    assert (message.scheduler, message.loras, message.reproducible) == (None, (), False)


def message_of(parts: Resources, given: dict[str, Any]) -> GenerateImage:
    """What a node gets for the first image of a job with this input."""
    now = datetime.now(UTC)
    job = Job(id=ids.new_job_id(), pipeline="thumbnails", run=1, input=given, deadline_at=now)
    image = ImageGeneration(
        id=ids.image_id(job.id, 0), job_id=job.id, index=0, run=1, prompt="a", model="m", seed=1,
        status=Status.PENDING,
    )  # fmt: skip
    return next(gpu.messages(parts, job, [image]))


def test_when_nobody_can_say_which_models_there_are_none_is_refused() -> None:
    parts = resources(Snapshot(reachable=False))
    prepared = ThumbnailsPipeline().prepare(
        ThumbnailsRequest(message="a", model="whatever"), parts, owner="local"
    )
    assert prepared.input["model"] == "whatever"
    assert prepared.total == 4

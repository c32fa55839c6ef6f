"""One image, made again: the same prompt, model, revision, seed and settings, and no language model."""

from typing import Any
from uuid import UUID

from celery.canvas import Signature
from pydantic import ConfigDict, Field, JsonValue

from backend import references
from backend.errors import FieldError, InvalidRequest, ObjectNotFound
from backend.jobs import ids, queries
from backend.jobs.ids import Role
from backend.jobs.models import ImageGeneration, Job
from backend.jobs.store import Plan
from backend.pipelines.base import JobRequest, Prepared, image_keys
from backend.resources import Resources
from backend.tasks.prompts import map_prompts
from contract.messages import ModelCard

_EXAMPLE: dict[str, JsonValue] = {"image_id": "5d3a1f4e-9d0c-5b77-8a43-0f5f4b1c2d3e"}

# What an original's job was asked for, and is asked for again; older jobs don't have all of it.
_KEPT = (
    "model", "width", "height", "steps", "guidance", "negative_prompt", "scheduler", "loras", "title",
    "strength", "reproducible", "output_format", "thumbnail_sizes", *ids.ROLES,
)  # fmt: skip
# What a model's default was then, and may not be today.
_RESOLVED = ("steps", "guidance", "strength")


class ReproductionsRequest(JobRequest):
    """Which image."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    image_id: UUID = Field(strict=False, description="The `id` of a completed image of your own.")


class ReproductionsPipeline:
    """map_prompts -> generate_image -> save_images: its one row is planned when it is accepted."""

    name = "reproductions"
    has_route = True
    summary = "Make an image again"
    description = (
        "Makes one image of yours again, from what its job and its `made_with` say of it. The new image's "
        "`reproduces` tells whether its bytes are the same: promised where the original was made with "
        "`reproducible`, by the same revision of its model, on the same kind of device and software."
    )
    request_schema = ReproductionsRequest

    def prepare(self, request: ReproductionsRequest, resources: Resources, *, owner: str) -> Prepared:
        """Finds the original, and says of it all that its maker needs."""
        with resources.db.read_scope() as session:
            image = queries.completed_image(session, request.image_id, owner)
            if image is None:
                raise _refused("no completed image of yours has this id")
            job = image.job
        card = resources.nodes.snapshot().models.get(image.model)
        if card and not card.can_reproduce:
            raise _refused(f"its model {image.model} can't make an image again")
        return Prepared(
            input={"image_id": str(image.id), **_asked(job, image, card), "original": _original(image)},
            total=1,
            plans=(Plan(image.prompt, image.model, image.seed),),
            starts=_starts(resources, job),
        )

    def canvas(self, job: Job, *, planned: bool) -> Signature:  # noqa: ARG002 - it always is
        """Prompt and references are there from the beginning."""
        mapper: Signature = map_prompts.si(job_id=str(job.id), run=job.run)
        return mapper

    def object_keys(self, job: Job) -> list[str]:
        """As of other images."""
        return image_keys(job)


def _asked(job: Job, image: ImageGeneration, card: ModelCard | None) -> dict[str, Any]:
    """What the original was asked for; where that was the model's default, what that came to."""
    asked = {name: job.input.get(name) for name in _KEPT}
    made_with = image.made_with
    asked |= {name: made_with.get(name) for name in _RESOLVED if asked[name] is None}
    if asked["scheduler"] is None and card and made_with.get("scheduler") in card.schedulers:
        asked["scheduler"] = made_with["scheduler"]  # else it is one that can't be asked for: the model's own
    asked["loras"] = asked["loras"] or []
    asked["reproducible"] = bool(asked["reproducible"])
    return asked | {"seed": image.seed, "revision": made_with.get("revision"), "preview": False}


def _original(image: ImageGeneration) -> dict[str, Any]:
    return {"task_id": str(image.job_id), "sha256": image.sha256}


def _starts(resources: Resources, job: Job) -> dict[Role, bytes]:
    """What the original started from, as its node got it. Raises `StorageUnavailable`."""
    limit = resources.settings.max_upload_bytes
    try:
        return {
            role: resources.storage.get(ids.reference_key(job.id, role), max_bytes=limit)
            for role in references.roles(job.input)
        }
    except ObjectNotFound as exc:
        raise _refused("what it started from is not stored any more") from exc


def _refused(detail: str) -> InvalidRequest:
    return InvalidRequest("This image can't be made again.", errors=(FieldError("#/image_id", detail),))

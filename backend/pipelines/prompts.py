"""The first half of the main job alone: one message in, N prompts out."""

from celery.canvas import Signature
from pydantic import ConfigDict, Field, JsonValue

from backend.errors import FieldError, InvalidRequest
from backend.jobs.models import Job
from backend.pipelines.base import (
    MAX_COUNT,
    MAX_SEED,
    JobRequest,
    Message,
    Prepared,
    Side,
)
from backend.resources import Resources
from backend.tasks.prompts import write_prompts

_EXAMPLE: dict[str, JsonValue] = {"message": "autumn sale for a small bookshop", "count": 4}


class PromptsRequest(JobRequest):
    """A message, and how many prompts are wanted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    message: Message
    count: int = Field(default=4, ge=1, le=MAX_COUNT, description="How many prompts.")
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="The same seed gives the same prompts, as far as may be."
    )
    width: Side | None = Field(default=None, description="Of the images that are meant, in pixels.")
    height: Side | None = Field(default=None, description="Of the images that are meant, in pixels.")


class PromptsPipeline:
    """write_prompts."""

    name = "prompts"
    has_route = True
    summary = "Write prompts from a message"
    description = (
        "Writes `count` image prompts from the message, and makes no images: the job's `output` is "
        '`{"prompts": [...]}`. To read prompts before images are made of them, see `review` of thumbnails.'
    )
    request_schema = PromptsRequest

    def prepare(
        self,
        request: PromptsRequest,
        resources: Resources,
        *,
        owner: str,  # noqa: ARG002 - the protocol's
    ) -> Prepared:
        """Checks the number of prompts."""
        if request.count > (most := resources.settings.max_count):
            error = FieldError("#/count", f"must be at most {most}")
            raise InvalidRequest("There are too many prompts.", errors=(error,))
        return Prepared(input=request.model_dump(mode="json", exclude={"webhook", "metadata"}), total=0)

    def canvas(self, job: Job, *, planned: bool) -> Signature:  # noqa: ARG002 - there are no images
        """One step."""
        step: Signature = write_prompts.si(job_id=str(job.id), run=job.run)
        return step

    def object_keys(self, job: Job) -> list[str]:  # noqa: ARG002 - the protocol's
        """It stores none."""
        return []

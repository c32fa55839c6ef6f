"""What a pipeline is: a request schema, and a function that builds a Celery canvas."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from celery.canvas import Signature
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from backend import references
from backend.jobs import ids
from backend.jobs.fairness import Priority
from backend.jobs.ids import Role
from backend.jobs.items import Source
from backend.jobs.models import Job
from backend.jobs.store import Plan
from backend.resources import Resources

MAX_METADATA_BYTES = 16 * 1024
MAX_MESSAGE_CHARACTERS = 16_000
MAX_COUNT = 100
MAX_SEED = 2**32 - 1
MAX_SIDE = 4096  # pixels; a model's own limit is usually lower

_ALLOWED_CONTROLS = "\n\r\t"
_NUL_IN_JSON = re.compile(r"(?<!\\)(\\\\)*\\u0000")  # and not the six characters, which have a backslash more

WebhookEvent = Literal[
    "job.created",
    "job.started",
    "job.awaiting_review",
    "job.step_completed",
    "job.completed",
    "job.partially_completed",
    "job.failed",
    "job.canceled",
    "job.retried",
    "image.started",
    "image.requeued",
    "image.generated",
    "image.completed",
    "image.failed",
    "image.canceled",
    "item.completed",
    "item.failed",
]


class RequestModel(BaseModel):
    """Base of all that clients send: what is not declared is refused, and "4" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def words_of(error: Mapping[str, Any]) -> str:
    """What pydantic says of an error, but never the value: that may be long, or a secret."""
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("too_long", "too_short") and error["ctx"]["field_type"] == "Value":  # of a `Text`
        return text.replace("Value", "Text").replace("items after validation", "characters")
    return text


def _check_text(value: str) -> str:
    """Text in any script; no control characters, no halves of characters, not only blanks."""
    for character in value:
        category = unicodedata.category(character)
        if category == "Cs" or (category == "Cc" and character not in _ALLOWED_CONTROLS):
            raise ValueError("control characters are not allowed")
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Text = Annotated[str, AfterValidator(_check_text)]
Message = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=MAX_MESSAGE_CHARACTERS,
        description="What the images are about, in any language.",
        examples=["autumn sale for a small bookshop"],
    ),
]
Side = Annotated[int, Field(ge=64, le=MAX_SIDE, multiple_of=8)]


class Webhook(RequestModel):
    """Whom to tell, and of what."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="An https URL that resolves to public addresses; or `mailto:person@example.com`, where "
        "the server sends e-mail.",
        examples=["https://example.com/hooks/fanfare"],
    )
    events: list[WebhookEvent] = Field(
        default=["job.completed", "job.partially_completed", "job.failed", "job.canceled"],
        min_length=1,
        max_length=20,
        description="Event types to be told of; by default each way in which a job can end.",
    )


class ImageSource(RequestModel):
    """An image that others start from."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["url"]}, {"required": ["image_id"]}],
            "examples": [{"url": "https://example.com/shop.jpg"}],
        }
    )

    url: str | None = Field(
        default=None,
        pattern=r"^(https?://|data:image/)",
        description="An https URL that resolves to public addresses, or a data URI in base64. "
        "PNG, JPEG, WebP or AVIF.",
        examples=["https://example.com/shop.jpg"],
    )
    image_id: UUID | None = Field(
        default=None, strict=False, description="The `id` of a completed image of your own."
    )

    @model_validator(mode="after")
    def _check_one(self) -> "ImageSource":
        if (self.url is None) == (self.image_id is None):
            raise ValueError("must have either url or image_id")
        return self


def json_of_at_most(most: int) -> AfterValidator:
    """Checks that an object takes at most so many bytes as JSON, and can be stored."""

    def check(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if len(text.encode()) > most:
            raise ValueError(f"may take at most {most} bytes as JSON")
        if _NUL_IN_JSON.search(text):
            raise ValueError("must not hold the character U+0000")
        return value

    return AfterValidator(check)


Metadata = Annotated[dict[str, JsonValue], json_of_at_most(MAX_METADATA_BYTES)]


class JobRequest(RequestModel):
    """What every pipeline's request has."""

    priority: Priority = Field(
        default="normal", description="What comes before what of your own; never before anybody else's."
    )
    webhook: Webhook | None = Field(default=None, description="Who is told, and of what; null: nobody.")
    metadata: Metadata = Field(
        default={}, description="Anything of yours; it comes back with the job.", examples=[{"order": "17"}]
    )


class MediaRequest(JobRequest):
    """What the requests have whose jobs make images of files from outside."""

    scale: float = Field(
        default=1.0, ge=0.01, le=1, strict=False, description="What both sides are multiplied by: 0.5 halves."
    )
    thumbnail_sizes: list[Annotated[int, Field(ge=16, le=2048)]] = Field(
        default=[200],
        max_length=10,
        description="Each the box, so many pixels wide and high, that a thumbnail fits into.",
        examples=[[200, 64]],
    )


@dataclass(frozen=True)
class Prepared:
    """A request that was found good."""

    input: dict[str, Any]  # with defaults filled in, as the job will show it
    total: int  # how many images it asks for
    files: Mapping[Role, bytes] = field(default_factory=dict)  # that came in the request, to be stored
    starts: Mapping[Role, bytes] = field(default_factory=dict)  # the same, as nodes get them
    plans: Sequence[Plan] = ()  # prompts that are known already, one per image
    sources: Sequence[Source] = ()  # where files come from that images are made of
    uploads: Mapping[int, Callable[[], bytes]] = field(default_factory=dict)  # those that came, by index
    held: bool = False  # it waits for its client's word: files are still to come
    steps: Sequence[str] = ()  # of jobs that are made of steps: their names, in order


class Pipeline(Protocol):
    """One kind of job."""

    @property
    def name(self) -> str:
        """As in `POST /v1/<name>`."""
        ...

    @property
    def summary(self) -> str:
        """One line for the API's documentation."""
        ...

    @property
    def description(self) -> str:
        """A paragraph for it."""
        ...

    @property
    def request_schema(self) -> type[JobRequest]:
        """What clients send."""
        ...

    @property
    def has_route(self) -> bool:
        """Whether its route is made from its schema, or it has one of its own."""
        ...

    def prepare(
        self,
        request: Any,  # noqa: ANN401 - its own request_schema
        resources: Resources,
        *,
        owner: str,
    ) -> Prepared:
        """Checks what the schema alone can't. Raises `InvalidRequest` with pointers."""
        ...

    def canvas(self, job: Job, *, planned: bool) -> Signature:
        """The job's workflow. `planned`: its rows exist already, so only what is open in them is to be done.

        Its last task gets the job's id. It may be run twice for the same job.
        """
        ...

    def object_keys(self, job: Job) -> list[str]:
        """Every object that the job may have stored, also without a row: what delete deletes.

        Not asked of jobs that take files: what they have is listed.
        """
        ...


def image_keys(job: Job) -> list[str]:
    """References, originals, thumbnails in all sizes; one that is never upscaled has its original's."""
    sizes = [*job.input["thumbnail_sizes"], max(job.input["width"], job.input["height"])]
    keys = ids.object_keys(job.id, range(job.total), job.input["output_format"], sizes)
    return keys + ids.reference_keys(job.id, references.roles(job.input))

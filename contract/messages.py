"""What travels between backend and node: frozen, strict, small. Ids, keys and URLs, never bytes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

JsonScalar = str | int | float | bool | None
Task = Literal["text-to-image", "image-to-image", "inpainting"]
ALIAS = r"^[a-z0-9][a-z0-9._-]{0,62}$"
OutputFormat = Literal["webp", "png", "jpeg"]

CONTENT_TYPES: dict[OutputFormat, str] = {"webp": "image/webp", "png": "image/png", "jpeg": "image/jpeg"}


class Message(BaseModel):
    """Base of all messages: what is not declared is refused, what is received is never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form, as it goes through the broker."""
        return self.model_dump(mode="json")


class SignedUpload(Message):
    """A plain HTTP PUT that the holder may make until it expires; no other key is needed."""

    url: str
    headers: dict[str, str] = {}  # to be sent exactly as they are: they are part of the signature
    expires_at: AwareDatetime
    max_bytes: int = Field(gt=0)


class SignedDownload(Message):
    """A plain HTTP GET that the holder may make until it expires; no other key is needed."""

    url: str
    expires_at: AwareDatetime
    max_bytes: int = Field(gt=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")  # of the object, where it is known


class LoraUse(Message):
    """A LoRA of the model's card, and how strongly it works."""

    name: str = Field(pattern=ALIAS)
    weight: float = Field(default=1.0, ge=-4, le=4)


class GenerateImage(Message):
    """One prompt, one image: what a clone of the `generate_image` task carries."""

    job_id: UUID
    image_id: UUID  # id of the row in image_generations
    index: int = Field(ge=0)
    run: int = Field(ge=1, description="Which run of this image: 1, then one more for each retry of the job.")

    model: str
    prompt: str
    negative_prompt: str | None = None
    title: str | None = None  # to be set on the picture, by engines that can set type
    width: int = Field(gt=0)  # pixels
    height: int = Field(gt=0)  # pixels
    steps: int | None = None  # None: the model's own default
    guidance: float | None = None  # None: the model's own default
    seed: int = Field(ge=0, lt=2**32)
    scheduler: str | None = None  # of the card's `schedulers`; None: the model's own default
    loras: tuple[LoraUse, ...] = ()

    task: Task = "text-to-image"
    reference: SignedDownload | None = None  # what image-to-image and inpainting start from
    mask: SignedDownload | None = None  # inpainting: white is made anew, black is kept
    strength: float | None = Field(default=None, gt=0, le=1)  # how much of the reference is made anew

    reproducible: bool = False  # bit for bit the same, whatever is made beside it
    revision: str | None = None  # the model must be of this revision; None: whichever the node has
    preview: bool = False  # small pictures of the unfinished image are wanted

    output_format: OutputFormat
    key: str  # where the original will be stored
    upload: SignedUpload
    queued_at: AwareDatetime
    deadline: AwareDatetime


class FailureCode(StrEnum):
    """Why one image was not made. Stable: clients branch on it; docs/errors.md lists it."""

    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_FAILED = "engine_failed"
    INVALID_REQUEST = "invalid_request"  # the model can't do what is asked (size, steps, ...)
    MODEL_NOT_AVAILABLE = "model_not_available"
    MODEL_NOT_USABLE = "model_not_usable"  # its files are not what the node accepts, or of another family
    LORA_NOT_USABLE = "lora_not_usable"  # the same of a LoRA
    REFERENCE_UNAVAILABLE = "reference_unavailable"  # the reference image or the mask can't be fetched
    REFERENCE_REFUSED = "reference_refused"  # it is no image, or not one that the node opens
    CONTENT_REFUSED = "content_refused"
    PROVIDER_FAILED = "provider_failed"  # a remote images API failed or answered nonsense
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_UNAUTHORIZED = "provider_unauthorized"
    UPLOAD_FAILED = "upload_failed"
    UPLOAD_EXPIRED = "upload_expired"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKER_LOST = "worker_lost"
    CANCELED = "canceled"
    ORIGINAL_MISSING = "original_missing"  # the node reported an image that the storage doesn't have
    ORIGINAL_CORRUPT = "original_corrupt"  # the stored bytes are not the image that was reported
    INTERNAL = "internal"


class Timings(Message):
    """Milliseconds spent on one image."""

    queued_ms: int | None = None  # from the fan-out until the engine began
    generate_ms: int | None = None  # in the engine, whole; of that:
    load_ms: int | None = None  # the model, where it had to be loaded
    encode_ms: int | None = None  # the prompts
    denoise_ms: int | None = None
    decode_ms: int | None = None  # latents to pixels
    store_ms: int | None = None  # file and upload; of that:
    upload_ms: int | None = None


class GeneratedImage(Message):
    """The node's report of an image that it has made and stored."""

    kind: Literal["generated"] = "generated"
    job_id: UUID
    image_id: UUID
    index: int
    run: int
    key: str
    content_type: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    width: int
    height: int
    seed: int
    model: str
    node: str
    attempts: int = Field(ge=1)
    timings: Timings
    made_with: dict[str, JsonScalar] = {}  # engine, its version, scheduler, ...: enough to make it again


class ImageFailure(Message):
    """The node's report of an image that it could not make. Data, never an exception: siblings go on."""

    kind: Literal["failure"] = "failure"
    job_id: UUID
    image_id: UUID
    index: int
    run: int
    code: FailureCode
    message: str = Field(max_length=500)  # for the client: no vendor text, no secret, no path
    retryable: bool
    node: str | None = None
    attempts: int = Field(ge=0, default=1)


class ImageStarted(Message):
    """The node's word that it has begun with an image."""

    kind: Literal["started"] = "started"
    job_id: UUID
    image_id: UUID
    index: int
    run: int
    node: str
    attempts: int
    started_at: AwareDatetime


ImageResult = Annotated[GeneratedImage | ImageFailure, Field(discriminator="kind")]
ImageReport = Annotated[ImageStarted | GeneratedImage | ImageFailure, Field(discriminator="kind")]


class LoraCard(Message):
    """A LoRA that a model may be asked to work with."""

    name: str = Field(pattern=ALIAS)
    description: str = ""
    default_weight: float = 1.0
    license: str | None = None


class ModelCard(Message):
    """What a node can be asked for under one alias."""

    name: str = Field(pattern=ALIAS)
    engine: str
    description: str = ""
    family: str | None = None  # sdxl, flux, ...: LoRAs fit within a family
    revision: str | None = None
    license: str | None = None  # a note for those who use its images
    tasks: tuple[Task, ...] = ("text-to-image",)
    min_size: int = 64  # pixels, each side
    max_size: int = 2048
    size_multiple: int = 8
    max_pixels: int | None = None  # width x height
    max_steps: int = 150
    default_width: int = 1024
    default_height: int = 1024
    default_steps: int | None = None
    default_guidance: float | None = None
    default_strength: float | None = None
    schedulers: tuple[str, ...] = ()  # names that a request may give; none: it can't be chosen
    default_scheduler: str | None = None
    loras: tuple[LoraCard, ...] = ()
    max_loras: int = 0  # at once
    can_set_title: bool = False
    can_negative_prompt: bool = True
    can_preview: bool = False
    can_reproduce: bool = True  # takes `reproducible`


class Device(Message):
    """What one node process is pinned to."""

    kind: Literal["cpu", "cuda", "rocm", "mps", "remote"]
    name: str
    index: int = 0
    memory_bytes: int | None = None


class NodeAnnouncement(Message):
    """What a node says of itself every few seconds; who is silent for longer is gone."""

    node: str  # unique among the live ones: name, device and process
    version: str
    device: Device
    models: tuple[ModelCard, ...]
    loaded: tuple[str, ...] = ()  # aliases that can be served without a cold load
    loading: tuple[str, ...] = ()  # those that are being downloaded or loaded now
    state: Literal["starting", "ready", "draining"] = "ready"
    concurrency: int = 1
    running: int = 0  # images in hand
    in_hand: tuple[UUID, ...] = ()  # their ids: what keeps their leases
    doing: str | None = None  # in words: what the engine is at
    memory_used_bytes: int | None = None  # of the device
    done: int = 0  # images made since the start
    failed: int = 0
    started_at: AwareDatetime
    seen_at: AwareDatetime


def seconds_left(deadline: datetime, now: datetime) -> float:
    """Seconds until the deadline; negative once it has passed."""
    return (deadline - now).total_seconds()

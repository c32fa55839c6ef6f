"""The main job: one message in, N prompts, N images with thumbnails out."""

from collections.abc import Sequence
from typing import Annotated, Any

from celery import chain
from celery.canvas import Signature
from pydantic import AfterValidator, ConfigDict, Field, JsonValue

from backend import references
from backend.errors import FieldError, InvalidRequest
from backend.jobs import ids
from backend.jobs.ids import Role
from backend.jobs.models import Job
from backend.pipelines.base import (
    MAX_COUNT,
    MAX_SEED,
    ImageSource,
    JobRequest,
    Message,
    Prepared,
    RequestModel,
    Side,
    Text,
    image_keys,
)
from backend.resources import Resources
from backend.tasks.prompts import generate_prompts, map_prompts
from backend.tasks.references import fetch_references
from contract.messages import ALIAS, ModelCard, OutputFormat

MAX_TITLE_CHARACTERS = 200
MAX_LORAS = 8  # a model's own limit is usually lower
DEFAULT_THUMBNAIL_SIZES = [512, 256, 128]

_EXAMPLE: dict[str, JsonValue] = {
    "message": "autumn sale for a small bookshop",
    "count": 4,
    "seed": 42,
    "thumbnail_sizes": [512, 256, 128],
    "metadata": {"order": "17"},
}

Size = Annotated[int, Field(ge=16, le=2048)]


class Lora(RequestModel):
    """A LoRA that the model shall work with."""

    name: str = Field(
        max_length=63,
        pattern=ALIAS,
        description="One of the model's `loras` in `GET /v1/models`.",
        examples=["watercolour"],
    )
    weight: float | None = Field(
        default=None, ge=-4, le=4, description="How strongly it works; by default as its card says."
    )


def _check_names(value: list[Lora]) -> list[Lora]:
    if len({lora.name for lora in value}) < len(value):
        raise ValueError("names one of them twice")
    return value


Loras = Annotated[list[Lora], AfterValidator(_check_names)]


class ThumbnailsRequest(JobRequest):
    """A message, and how its images shall be."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    message: Message
    count: int = Field(default=4, ge=1, le=MAX_COUNT, description="How many images.")
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="An alias from `GET /v1/models`; by default the server's choice.",
        examples=["sketch"],
    )
    width: Side | None = Field(
        default=None, description="Pixels, a multiple of 8; by default the model's own."
    )
    height: Side | None = Field(
        default=None, description="Pixels, a multiple of 8; by default the model's own."
    )
    steps: int | None = Field(
        default=None, ge=1, le=500, description="Denoising steps; by default the model's own."
    )
    guidance: float | None = Field(
        default=None, ge=0, le=50, description="How closely to follow the prompt; by default the model's own."
    )
    negative_prompt: Text | None = Field(
        default=None, max_length=2000, description="What shall not be on the images; for models that know it."
    )
    scheduler: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="One of the model's `schedulers`; by default the model's own.",
        examples=["euler"],
    )
    loras: Loras = Field(
        default=[], max_length=MAX_LORAS, description="At most the model's `max_loras`, each once."
    )
    title: Text | None = Field(
        default=None,
        max_length=MAX_TITLE_CHARACTERS,
        description="Text to set on the pictures; only for models with `can_set_title`.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="The same seed makes the same prompts and images.",
    )
    reproducible: bool = Field(
        default=False,
        description="The same request gives the same bytes, whatever is made beside it; it takes longer.",
    )
    review: bool = Field(
        default=False,
        description="Stop when the prompts are written, until `POST /v1/jobs/{task_id}/continue`.",
    )
    preview: bool = Field(
        default=False, description="`preview` events show the images while they are made, to open streams."
    )
    reference: ImageSource | None = Field(
        default=None, description="What the images start from; for models whose `tasks` have image-to-image."
    )
    mask: ImageSource | None = Field(
        default=None,
        description="Which parts of the reference are made anew: white ones are, black ones stay. "
        "It has the reference's shape; for models whose `tasks` have inpainting.",
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, description="How much of the reference is made anew; the model's own else."
    )
    output_format: OutputFormat = Field(default="webp", description="Of the originals.")
    thumbnail_sizes: list[Size] = Field(
        default=DEFAULT_THUMBNAIL_SIZES, max_length=8, description="Longest sides in pixels; never upscaled."
    )


class ThumbnailsPipeline:
    """generate_prompts -> generate_image x N -> save_images."""

    name = "thumbnails"
    has_route = True
    summary = "Make images from a message"
    description = (
        "Writes `count` prompts from the message and makes one image, with thumbnails, from each. "
        "Answers at once; poll the job, stream its events or wait for its webhook."
    )
    request_schema = ThumbnailsRequest

    def prepare(self, request: ThumbnailsRequest, resources: Resources, *, owner: str) -> Prepared:
        """Checks the request against what the model can do, and fills in its defaults."""
        model = request.model or resources.settings.default_model
        card = _find_model(model, resources)
        errors = _check_task(request, card)
        errors += _check_limits(request, card, resources) if card else []
        if errors:
            raise InvalidRequest(f"Model {model} can't do this.", errors=tuple(errors))
        accepted = _accept_images(request, resources, owner)
        filled = request.model_dump(mode="json", exclude={"webhook", "metadata", *ids.ROLES})
        filled |= {role: one.input if one else None for role, one in accepted.items()}
        filled["model"] = model
        filled["width"] = request.width or (card.default_width if card else 1024)
        filled["height"] = request.height or (card.default_height if card else 1024)
        filled["loras"] = _with_weights(request.loras, card)
        filled["thumbnail_sizes"] = sorted(set(request.thumbnail_sizes), reverse=True)
        files = {role: one.data for role, one in accepted.items() if one and one.data is not None}
        return Prepared(input=filled, total=request.count, files=files)

    def canvas(self, job: Job, *, planned: bool) -> Signature:
        """Prompts, then images; a retry has its prompts already. The end, the nodes' reports bring about."""
        given: dict[str, Any] = {"job_id": str(job.id), "run": job.run}
        steps = [map_prompts.si(**given) if planned else generate_prompts.si(**given)]
        if references.roles(job.input):
            steps.insert(0, fetch_references.si(**given))
        return chain(*steps) if len(steps) > 1 else steps[0]

    def object_keys(self, job: Job) -> list[str]:
        """What its images and their references are stored as."""
        return image_keys(job)


def _find_model(model: str, resources: Resources) -> ModelCard | None:
    """The model's card. None: known by setting only, or the result store is away and nobody can say."""
    snapshot = resources.nodes.snapshot()
    known = set(resources.settings.models) | set(snapshot.models) | {resources.settings.default_model}
    if model not in known and (snapshot.reachable or snapshot.models):
        names = ", ".join(sorted(known))
        detail = f"unknown model; known are: {names}"
        raise InvalidRequest(f"There is no model {model!r}.", errors=(FieldError("#/model", detail),))
    return snapshot.models.get(model)


def _with_weights(loras: list[Lora], card: ModelCard | None) -> list[dict[str, Any]]:
    usual = {lora.name: lora.default_weight for lora in card.loras} if card else {}
    return [
        {"name": lora.name, "weight": usual.get(lora.name, 1.0) if lora.weight is None else lora.weight}
        for lora in loras
    ]


def _accept_images(
    request: ThumbnailsRequest, resources: Resources, owner: str
) -> dict[Role, references.Accepted | None]:
    def accept(role: Role, given: ImageSource | None) -> references.Accepted | None:
        if given is None:
            return None
        return references.accept(resources, role, url=given.url, image_id=given.image_id, owner=owner)

    return {"reference": accept("reference", request.reference), "mask": accept("mask", request.mask)}


def _check_task(request: ThumbnailsRequest, card: ModelCard | None) -> list[FieldError]:
    """What follows from the images that are given: image-to-image, or with a mask inpainting."""
    if request.reference is None:
        alone = [name for name in ("mask", "strength") if getattr(request, name) is not None]
        return [FieldError(f"#/{name}", "needs a reference") for name in alone]
    if card and request.mask and "inpainting" not in card.tasks:
        return [FieldError("#/mask", f"{card.name} can't do inpainting")]
    if card and not request.mask and "image-to-image" not in card.tasks:
        return [FieldError("#/reference", f"{card.name} can't do image-to-image")]
    return []


def _check_limits(request: ThumbnailsRequest, card: ModelCard, resources: Resources) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in ("width", "height"):
        side = getattr(request, name)
        if side is not None and not card.min_size <= side <= card.max_size:
            errors.append(
                FieldError(f"#/{name}", f"must be {card.min_size} to {card.max_size} for {card.name}")
            )
        elif side is not None and side % card.size_multiple:
            errors.append(
                FieldError(f"#/{name}", f"must be a multiple of {card.size_multiple} for {card.name}")
            )
    errors += _check_pixels(request, card)
    if request.steps is not None and request.steps > card.max_steps:
        errors.append(FieldError("#/steps", f"must be at most {card.max_steps} for {card.name}"))
    if request.scheduler is not None and request.scheduler not in card.schedulers:
        errors.append(FieldError("#/scheduler", _known("scheduler", card.schedulers, card)))
    errors += _check_loras(request.loras, card) + _check_abilities(request, card)
    if request.count > resources.settings.max_count:
        errors.append(FieldError("#/count", f"must be at most {resources.settings.max_count}"))
    return errors


def _check_pixels(request: ThumbnailsRequest, card: ModelCard) -> list[FieldError]:
    width, height = request.width or card.default_width, request.height or card.default_height
    if card.max_pixels is None or width * height <= card.max_pixels:
        return []
    larger = "height" if request.width is None or (request.height or 0) > request.width else "width"
    return [FieldError(f"#/{larger}", f"width x height must be at most {card.max_pixels} for {card.name}")]


def _check_loras(loras: list[Lora], card: ModelCard) -> list[FieldError]:
    known = [lora.name for lora in card.loras]
    errors = [
        FieldError(f"#/loras/{place}/name", _known("LoRA", known, card))
        for place, lora in enumerate(loras)
        if lora.name not in known
    ]
    if not errors and len(loras) > card.max_loras:
        errors.append(FieldError("#/loras", f"{card.name} takes at most {card.max_loras} at once"))
    return errors


def _known(what: str, names: Sequence[str], card: ModelCard) -> str:
    if not names:
        return f"{card.name} knows no {what}s that could be chosen"
    return f"unknown {what}; known for {card.name} are: {', '.join(sorted(names))}"


def _check_abilities(request: ThumbnailsRequest, card: ModelCard) -> list[FieldError]:
    abilities = {
        "title": (card.can_set_title, "set a title on its pictures"),
        "negative_prompt": (card.can_negative_prompt, "take a negative prompt"),
        "reproducible": (card.can_reproduce, "make an image bit for bit again"),
        "preview": (card.can_preview, "show an image while it is made"),
    }
    return [
        FieldError(f"#/{name}", f"{card.name} can't {words}")
        for name, (can, words) in abilities.items()
        if getattr(request, name) and not can
    ]

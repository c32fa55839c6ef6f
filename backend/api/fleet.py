"""`/v1/models` and `/v1/workers`: what can be asked for, and who is there to do it."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from backend import views
from backend.api.dependencies import DemandDep, OwnerDep, ResourcesDep
from backend.api.documentation import problems

router = APIRouter(tags=["fleet"])


class LoraOffer(views.View):
    """A LoRA that a model may be asked to work with."""

    name: str = Field(description="What a request's `loras` name.", examples=["watercolour"])
    description: str = ""
    default_weight: float = Field(default=1.0, description="What it works with where a request gives none.")
    license: str | None = Field(default=None, description="A note for those who use its images.")


class Model(views.View):
    """What can be asked for under one alias."""

    name: str = Field(description="The alias: what a request's `model` takes.")
    engine: str | None = Field(default=None, description="What runs it; null while no worker has said.")
    description: str = ""
    family: str | None = Field(default=None, description="Such as `sdxl`: LoRAs fit within a family.")
    revision: str | None = Field(
        default=None, description="Of its weights; images say it in `made_with`, where there is one."
    )
    license: str | None = Field(default=None, description="A note for those who use its images.")
    tasks: list[str] = Field(default=[], description="Of `text-to-image`, `image-to-image` and `inpainting`.")
    min_size: int | None = Field(default=None, description="Pixels, each side.")
    max_size: int | None = Field(default=None, description="Pixels, each side.")
    size_multiple: int | None = Field(default=None, description="Each side is a multiple of it.")
    max_pixels: int | None = Field(default=None, description="Width x height at most; null: as its sides.")
    max_steps: int | None = None
    default_width: int | None = Field(default=None, description="Pixels.")
    default_height: int | None = Field(default=None, description="Pixels.")
    default_steps: int | None = None
    default_guidance: float | None = None
    default_strength: float | None = Field(
        default=None, description="How much of a reference is made anew, from 0 to 1."
    )
    schedulers: list[str] = Field(
        default=[], description="What a request's `scheduler` takes; none: it can't be chosen."
    )
    default_scheduler: str | None = None
    loras: list[LoraOffer] = Field(default=[], description="What a request's `loras` take.")
    max_loras: int = Field(default=0, description="How many of them at once.")
    can_set_title: bool = Field(default=False, description="Whether it takes a `title`.")
    can_negative_prompt: bool = Field(default=False, description="Whether it takes a `negative_prompt`.")
    can_preview: bool = Field(default=False, description="Whether it takes `preview`.")
    can_reproduce: bool = Field(default=False, description="Whether it takes `reproducible`.")
    default: bool = Field(default=False, description="Used when a request names none.")
    workers: int = Field(default=0, description="Live workers that serve it.")
    loaded: int = Field(default=0, description="Those of them that can begin without loading it first.")
    loading: int = Field(default=0, description="Those of them that are downloading or loading it now.")
    waiting: int = Field(
        default=0, description="Images, of all owners, whose prompt is written and that no worker has begun."
    )
    running: int = Field(default=0, description="Images, of all owners, that workers have in hand.")
    oldest_wait_s: float = Field(
        default=0, description="How long the oldest of the waiting images has waited, in seconds."
    )


class ModelList(views.View):
    """All known models."""

    results: list[Model]


class Device(views.View):
    """What a worker is pinned to."""

    kind: Literal["cpu", "cuda", "rocm", "mps", "remote"]
    name: str = Field(description="As its vendor calls it.")
    index: int = Field(default=0, description="Among the devices of its machine.")
    memory_bytes: int | None = None


class Worker(views.View):
    """One live node."""

    name: str = Field(description="Unique among the live ones.")
    version: str
    device: Device
    models: list[str] = Field(description="Aliases that it serves.")
    loaded: list[str] = Field(description="Those that it can begin with at once.")
    loading: list[str] = Field(description="Those that it is downloading or loading now.")
    state: Literal["starting", "ready", "draining"] = Field(
        description="`draining`: finishes what it has, takes nothing new."
    )
    concurrency: int = Field(description="How many images it takes at once.")
    running: int = Field(description="Images in hand.")
    doing: str | None = Field(
        description="What its engine is at, in words; null: nothing, or it doesn't say."
    )
    memory_used_bytes: int | None = Field(description="Of the device; null: unknown.")
    done: int = Field(description="Images made since it started.")
    failed: int = Field(description="Images failed since it started.")
    started_at: datetime
    seen_at: datetime = Field(description="When it was last heard of.")


class WorkerList(views.View):
    """All live nodes."""

    results: list[Worker]


@router.get("/models", operation_id="list_models", responses=problems(401, 503))
def list_models(resources: ResourcesDep, _owner: OwnerDep, board: DemandDep) -> ModelList:
    """What can be asked for, its limits, how many live workers serve it, and how much waits for them."""
    snapshot, now = resources.nodes.snapshot(), views.now()
    results = []
    for name, demand in board.read().items():
        serving = snapshot.serving(name)
        card = snapshot.models.get(name)
        results.append(
            Model(
                **(card.model_dump() if card else {"name": name}),
                default=name == resources.settings.default_model,
                workers=len(serving),
                loaded=sum(name in node.loaded for node in serving),
                loading=sum(name in node.loading for node in serving),
                waiting=demand.waiting,
                running=demand.running,
                oldest_wait_s=round(demand.oldest_wait_s(now), 1),
            )
        )
    return ModelList(results=results)


@router.get("/workers", operation_id="list_workers", responses=problems(401, 503))
def list_workers(resources: ResourcesDep, _owner: OwnerDep) -> WorkerList:
    """The live GPU nodes: device, models, since when, doing what."""
    return WorkerList(
        results=[
            Worker(
                name=node.node,
                device=Device(**node.device.model_dump()),
                models=[card.name for card in node.models],
                **node.model_dump(exclude={"node", "device", "models"}),
            )
            for node in resources.nodes.snapshot().nodes
        ]
    )

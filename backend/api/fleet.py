"""`/v1/models` and `/v1/workers`: what can be asked for, and who is there to do it."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from backend import views
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import problems

router = APIRouter(tags=["fleet"])


class Model(views.View):
    """What can be asked for under one alias."""

    name: str = Field(description="The alias: what a request's `model` takes.")
    engine: str | None = Field(default=None, description="What runs it; null while no worker has said.")
    description: str = ""
    tasks: list[str] = Field(default=[], description="Such as `text-to-image`.")
    min_size: int | None = Field(default=None, description="Pixels, each side.")
    max_size: int | None = Field(default=None, description="Pixels, each side.")
    size_multiple: int | None = Field(default=None, description="Each side is a multiple of it.")
    max_steps: int | None = None
    default_width: int | None = Field(default=None, description="Pixels.")
    default_height: int | None = Field(default=None, description="Pixels.")
    default_steps: int | None = None
    default_guidance: float | None = None
    can_set_title: bool = Field(default=False, description="Whether it takes a `title`.")
    default: bool = Field(default=False, description="Used when a request names none.")
    workers: int = Field(default=0, description="Live workers that serve it.")
    loaded: int = Field(default=0, description="Those of them that can begin without loading it first.")


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
    state: Literal["starting", "ready", "draining"] = Field(
        description="`draining`: finishes what it has, takes nothing new."
    )
    concurrency: int = Field(description="How many images it takes at once.")
    running: int = Field(description="Images in hand.")
    done: int = Field(description="Images made since it started.")
    failed: int = Field(description="Images failed since it started.")
    started_at: datetime
    seen_at: datetime = Field(description="When it was last heard of.")


class WorkerList(views.View):
    """All live nodes."""

    results: list[Worker]


@router.get("/models", operation_id="list_models", responses=problems(401, 503))
def list_models(resources: ResourcesDep, _owner: OwnerDep) -> ModelList:
    """What can be asked for, its limits, and how many live workers serve it."""
    snapshot, settings = resources.nodes.snapshot(), resources.settings
    names = set(snapshot.models) | set(settings.models) | {settings.default_model}
    results = []
    for name in sorted(names):
        serving = snapshot.serving(name)
        card = snapshot.models.get(name)
        results.append(
            Model(
                **(card.model_dump() if card else {"name": name}),
                default=name == settings.default_model,
                workers=len(serving),
                loaded=sum(name in node.loaded for node in serving),
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
                loaded=list(node.loaded),
                **node.model_dump(exclude={"node", "device", "models", "loaded"}),
            )
            for node in resources.nodes.snapshot().nodes
        ]
    )

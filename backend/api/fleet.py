"""`/v1/models` and `/v1/workers`: what can be asked for, and who is there to do it."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter

from backend import views
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import problems

router = APIRouter(tags=["fleet"])


class ModelView(views.View):
    """What can be asked for under one alias."""

    name: str
    engine: str | None = None
    description: str = ""
    tasks: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    size_multiple: int | None = None
    max_steps: int | None = None
    default_width: int | None = None
    default_height: int | None = None
    default_steps: int | None = None
    default_guidance: float | None = None
    can_set_title: bool = False
    default: bool = False  # used when a request names none
    workers: int = 0  # live ones that serve it
    loaded: int = 0  # those of them that can begin without loading it


class ModelList(views.View):
    """All known models."""

    results: list[ModelView]


class DeviceView(views.View):
    """What a worker is pinned to."""

    kind: str
    name: str
    index: int = 0
    memory_bytes: int | None = None


class WorkerView(views.View):
    """One live node."""

    name: str
    version: str
    device: DeviceView
    models: list[str]
    loaded: list[str]
    state: Literal["starting", "ready", "draining"]
    concurrency: int
    running: int  # images in hand
    done: int
    failed: int
    started_at: datetime
    seen_at: datetime


class WorkerList(views.View):
    """All live nodes."""

    results: list[WorkerView]


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
            ModelView(
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
            WorkerView(
                name=node.node,
                device=DeviceView(**node.device.model_dump()),
                models=[card.name for card in node.models],
                loaded=list(node.loaded),
                **node.model_dump(exclude={"node", "device", "models", "loaded"}),
            )
            for node in resources.nodes.snapshot().nodes
        ]
    )

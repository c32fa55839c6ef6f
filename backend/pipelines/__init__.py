"""The pipelines, by name. Those of events are reached by `POST /v1/events`, others by `POST /v1/<name>`."""

from typing import Any

from backend.pipelines.base import Pipeline
from backend.pipelines.product_images import ProductImagesPipeline
from backend.pipelines.prompts import PromptsPipeline
from backend.pipelines.reproductions import ReproductionsPipeline
from backend.pipelines.steps import EventPipeline, check_names
from backend.pipelines.thumbnails import ThumbnailsPipeline
from backend.pipelines.triage import TRIAGE
from backend.pipelines.uploads import UploadsPipeline

PIPELINES: dict[str, Pipeline] = {
    "thumbnails": ThumbnailsPipeline(),
    "reproductions": ReproductionsPipeline(),
    "prompts": PromptsPipeline(),
    "uploads": UploadsPipeline(),
    "product_images": ProductImagesPipeline(),
    "triage": TRIAGE,
}

check_names(PIPELINES)

EVENTS: dict[str, EventPipeline[Any]] = {  # by event type
    pipeline.event_type: pipeline for pipeline in PIPELINES.values() if isinstance(pipeline, EventPipeline)
}

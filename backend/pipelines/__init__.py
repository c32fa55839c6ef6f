"""The pipelines, by name: each gets its route `POST /v1/<name>` from here."""

from backend.pipelines.base import Pipeline
from backend.pipelines.product_images import ProductImagesPipeline
from backend.pipelines.prompts import PromptsPipeline
from backend.pipelines.reproductions import ReproductionsPipeline
from backend.pipelines.thumbnails import ThumbnailsPipeline
from backend.pipelines.uploads import UploadsPipeline

PIPELINES: dict[str, Pipeline] = {
    "thumbnails": ThumbnailsPipeline(),
    "reproductions": ReproductionsPipeline(),
    "prompts": PromptsPipeline(),
    "uploads": UploadsPipeline(),
    "product_images": ProductImagesPipeline(),
}

"""Image URLs in, smaller images of products out: of one product, or of all that an owner has."""

from typing import Annotated, Literal
from uuid import UUID

from celery.canvas import Signature
from pydantic import AfterValidator, ConfigDict, Field, JsonValue

from backend.errors import Conflict, FieldError, InvalidRequest, NotFound
from backend.jobs.items import Source
from backend.jobs.models import Job
from backend.pipelines.base import MediaRequest, Prepared
from backend.products import fields, store
from backend.resources import Resources
from backend.tasks.items import process_items
from backend.views import now

MAX_ITEMS = 5000  # of one job
MAX_SERIAL_NUMBERS = 1000

_EXAMPLE: dict[str, JsonValue] = {"image_urls": ["https://example.com/lamp/front.jpg"], "scale": 0.5}


class ProductMediaRequest(MediaRequest):
    """How images of products are made."""

    scale: float = Field(
        default=0.5, ge=0.01, le=1, strict=False, description="What both sides are multiplied by: 0.5 halves."
    )
    thumbnail_sizes: list[Annotated[int, Field(ge=16, le=2048)]] = Field(
        default=[], max_length=10, description="Boxes that a thumbnail fits into; by default there are none."
    )


class ProductImagesRequest(ProductMediaRequest):
    """Which images of a product."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    image_urls: (
        list[
            Annotated[
                str,
                Field(min_length=1, max_length=fields.MOST_URL_CHARACTERS, pattern="^https?://"),
                AfterValidator(fields.image_url),
            ]
        ]
        | None
    ) = Field(
        default=None,
        min_length=1,
        max_length=fields.MOST_URLS,
        description="They become the product's own, which has 200 at most; null: those that it has.",
    )


class OneProductsImages(ProductImagesRequest):
    """The same, with the product that the URL names."""

    product_id: UUID


class AllProductImagesRequest(ProductMediaRequest):
    """Which images of all products."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scale": 0.5}]})

    which: Literal["missing", "all"] = Field(
        default="missing", description="`missing`: those of which nothing was made yet."
    )
    serial_numbers: list[str] | None = Field(
        default=None, min_length=1, max_length=MAX_SERIAL_NUMBERS, description="Of these products alone."
    )


class ProductImagesPipeline:
    """process_items, again and again until nothing is left to do."""

    name = "product_images"
    has_route = False  # they are below /v1/products: `api.product_images`
    summary = "Make images of products"
    description = (
        "Fetches images of products, makes them smaller and clean, and keeps them with the products."
    )
    request_schema = ProductMediaRequest

    def prepare(self, request: ProductMediaRequest, resources: Resources, *, owner: str) -> Prepared:
        """One item for each image. Raises `NotFound`, `InvalidRequest` where there would be too many, or
        `Conflict` where there is nothing to do.
        """
        given = request.model_dump(mode="json", exclude={"webhook", "metadata"})
        if isinstance(request, OneProductsImages):
            pairs, left = _of_one(resources, request, owner), 0
        else:
            assert isinstance(request, AllProductImagesRequest)
            with resources.db.read_scope() as session:
                pairs, found = store.to_make(
                    session, owner, request.serial_numbers, MAX_ITEMS, missing=request.which == "missing"
                )
            left = found - len(pairs)
        if not pairs:
            raise Conflict("There is no image to be made.")
        sources = [Source(url=url, product_id=product_id) for product_id, url in pairs]
        return Prepared(given | {"left": left}, total=len(sources), sources=sources)

    def canvas(self, job: Job, *, planned: bool) -> Signature:  # noqa: ARG002 - there are no prompts
        """One step, that sends itself on."""
        step: Signature = process_items.si(job_id=str(job.id), run=job.run)
        return step

    def object_keys(self, job: Job) -> list[str]:  # noqa: ARG002 - the protocol's
        """What is made belongs to the products."""
        return []


def _of_one(resources: Resources, request: OneProductsImages, owner: str) -> list[tuple[UUID, str]]:
    """The product's images; those that are named are its own from now on."""
    with resources.db.session_scope() as session:
        product = store.lock(session, request.product_id, owner)
        if product is None:
            raise NotFound("There is no such product.")
        try:
            store.add_urls(product, request.image_urls or (), now())
        except ValueError as exc:
            error = FieldError("#/image_urls", str(exc))
            raise InvalidRequest("There are too many images.", errors=(error,)) from exc
        urls = request.image_urls or [image.input_url for image in product.images]
    return [(request.product_id, url) for url in dict.fromkeys(urls)]

"""`/v1/products`: what you sell, with its images and what was made of them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, ConfigDict, Field

from backend import views
from backend.api import paging
from backend.api.dependencies import OwnerDep, ResourcesDep
from backend.api.documentation import header, problems, product_links
from backend.api.examples import PRODUCT_ID
from backend.api.json_body import StrictRoute
from backend.media_urls import media_url
from backend.pipelines.base import RequestModel
from backend.products import editing, fields, store
from backend.products.fields import ProductFields
from backend.products.models import Product as ProductRow
from backend.products.models import ProductImage as ImageRow
from backend.products.store import Wanted
from backend.resources import Resources
from backend.views import now

# Only ids are products: `export` and `import` beside them have methods of their own.
router = APIRouter(prefix="/products", tags=["products"], route_class=StrictRoute)

ProductId = Annotated[UUID, Path(description="The product's id.", examples=[PRODUCT_ID])]
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"


class ProductRequest(RequestModel):
    """What you say of a product."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "serial_number": "LAMP-17",
                    "name": "Desk lamp, brass",
                    "image_urls": ["https://example.com/lamp/front.jpg", "https://example.com/lamp/back.jpg"],
                }
            ]
        }
    )

    serial_number: Annotated[
        str,
        Field(
            min_length=1,
            max_length=fields.MOST_SERIAL_NUMBER_CHARACTERS,
            description="One line; no two of your products have the same. Blanks around it don't count.",
        ),
        AfterValidator(fields.serial_number),
    ]
    name: Annotated[
        str,
        Field(
            min_length=1, max_length=fields.MOST_NAME_CHARACTERS, description="Blanks around it don't count."
        ),
        AfterValidator(fields.name),
    ]
    image_urls: list[
        Annotated[
            str,
            Field(min_length=1, max_length=fields.MOST_URL_CHARACTERS, pattern="^https?://"),
            AfterValidator(fields.image_url),
        ]
    ] = Field(
        default=[],
        max_length=fields.MOST_URLS,
        description="Where its images are. What is named twice counts once.",
    )

    def checked(self) -> ProductFields:
        """The same, as it is kept."""
        return ProductFields(self.serial_number, self.name, fields.image_urls(self.image_urls))


class ProductImage(views.View):
    """One image of a product: where it came from, and what was made of it."""

    id: UUID
    input_url: str = Field(description="As you named it.")
    status: Literal["pending", "completed", "failed"] = Field(
        description="How the last try went; `pending`: there was none yet. An output of an earlier try stays."
    )
    output_url: str | None = Field(
        description="What was made of it, for as long as it exists; null: nothing yet."
    )
    width: int | None = Field(description="Pixels of the output.")
    height: int | None = Field(description="Pixels of the output.")
    content_type: str | None = Field(description="Of the output.", examples=["image/webp"])
    bytes: int | None = Field(description="Size of the output.")
    sha256: str | None = Field(description="Of the output's bytes.")
    scale: float | None = Field(description="How much smaller than the input it was made.", examples=[0.5])
    thumbnails: list[views.Thumbnail] = Field(description="Smallest first.")
    task_id: UUID | None = Field(description="The job that tried last; it may be deleted by now.")
    error: views.Error | None = Field(description="Why the last try failed, if it did.")
    updated_at: datetime


class Product(views.View):
    """Something that you sell."""

    id: UUID
    serial_number: str = Field(examples=["LAMP-17"])
    name: str = Field(examples=["Desk lamp, brass"])
    images: list[ProductImage] = Field(description="In your order.")
    created_at: datetime
    updated_at: datetime = Field(description="When you last changed what is said of it.")


class ProductPage(views.View):
    """A part of your products, newest first."""

    results: list[Product]
    next: str | None = Field(
        default=None, description="URL of the page with older products; null: there are none."
    )
    previous: str | None = Field(default=None, description="URL of the page with newer products.")


def show(resources: Resources, row: ProductRow) -> Product:
    """The view of a product whose images are loaded."""
    return Product(
        id=row.id, serial_number=row.serial_number, name=row.name, created_at=row.created_at,
        updated_at=row.updated_at, images=[_show_image(resources, image) for image in row.images],
    )  # fmt: skip


def _show_image(resources: Resources, row: ImageRow) -> ProductImage:
    return ProductImage(
        id=row.id, input_url=row.input_url, status=_status(row),
        output_url=media_url(resources, row.key) if row.key else None,
        width=row.width, height=row.height, content_type=row.content_type, bytes=row.bytes,
        sha256=row.sha256, scale=row.scale, task_id=row.job_id,
        thumbnails=views.thumbnails_of(row.thumbnails, lambda key: media_url(resources, key)),
        error=_show_error(row), updated_at=row.updated_at,
    )  # fmt: skip


def _status(row: ImageRow) -> Literal["pending", "completed", "failed"]:
    if row.error_code:
        return "failed"
    return "completed" if row.key else "pending"


def _show_error(row: ImageRow) -> views.Error | None:
    if not row.error_code:
        return None
    return views.Error(
        code=row.error_code, message=row.error_message or "", retryable=bool(row.error_retryable)
    )


@router.post(
    "",
    status_code=201,
    operation_id="create_product",
    responses=problems(400, 401, 409, 413, 415, 422, 503)
    | {
        201: {
            "description": "The product.",
            "headers": {"Location": header("Where it is.")},
            "links": product_links(),
        }
    },
)
def create_product(
    wanted: ProductRequest, resources: ResourcesDep, owner: OwnerDep, response: Response
) -> Product:
    """A new product. `409` if you have one with this serial number."""
    row = editing.create(resources.db, owner, wanted.checked(), now())
    response.headers["Location"] = f"/v1/products/{row.id}"
    return show(resources, row)


@router.get(
    "", operation_id="list_products", responses=problems(401, 422, 503) | {200: {"description": "One page."}}
)
def list_products(
    request: Request,
    resources: ResourcesDep,
    owner: OwnerDep,
    serial_number: Annotated[
        str | None,
        Query(max_length=100, pattern=_NO_CONTROLS, description="The one with this serial number."),
    ] = None,
    name: Annotated[
        str | None,
        Query(
            max_length=500, pattern=_NO_CONTROLS, description="Those with this in their names, in any case."
        ),
    ] = None,
    cursor: Annotated[str | None, Query(max_length=64, description="From `next` or `previous`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
) -> ProductPage:
    """Your products, newest first, in pages."""
    at, wanted = paging.read_cursor(cursor), Wanted(serial_number, name)
    with resources.db.read_scope() as session:
        page = paging.cut(
            request, resources.settings.public_url, at, limit,
            lambda most: store.page(session, owner, wanted, most, before=at.before, after=at.after),
        )  # fmt: skip
    return ProductPage(
        results=[show(resources, row) for row in page.rows], next=page.next, previous=page.previous
    )


@router.get("/{product_id:uuid}", operation_id="get_product", responses=problems(401, 404, 422, 503))
def get_product(product_id: ProductId, resources: ResourcesDep, owner: OwnerDep) -> Product:
    """One of your products, with its images and what was made of them."""
    return show(resources, editing.read(resources.db, product_id, owner))


@router.put(
    "/{product_id:uuid}",
    operation_id="replace_product",
    responses=problems(400, 401, 404, 409, 413, 415, 422, 503)
    | {200: {"description": "The product as it is now."}},
)
def replace_product(
    product_id: ProductId, wanted: ProductRequest, resources: ResourcesDep, owner: OwnerDep
) -> Product:
    """All that is said of it, anew. What was made of image URLs that are no longer named is deleted."""
    row = editing.replace(resources.db, resources.storage, product_id, owner, wanted.checked(), now())
    return show(resources, row)


@router.delete(
    "/{product_id:uuid}",
    status_code=204,
    operation_id="delete_product",
    responses=problems(401, 404, 422, 503) | {204: {"description": "Gone."}},
)
def delete_product(product_id: ProductId, resources: ResourcesDep, owner: OwnerDep) -> None:
    """Deletes the product, and all that was made for it."""
    editing.delete(resources.db, resources.storage, product_id, owner, now())

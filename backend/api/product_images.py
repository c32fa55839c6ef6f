"""`POST /v1/products/{product_id}/images` and `/v1/products/images`: jobs that make images of products."""

from fastapi import APIRouter, Response

from backend import submit, views
from backend.api.dependencies import RatedOwnerDep, ResourcesDep
from backend.api.documentation import job_links, problems
from backend.api.json_body import StrictRoute
from backend.api.pipelines import CancelAfter, IdempotencyKey, accepted, accepted_as, seconds
from backend.api.products import ProductId
from backend.pipelines import PIPELINES
from backend.pipelines.product_images import (
    AllProductImagesRequest,
    OneProductsImages,
    ProductImagesRequest,
    ProductMediaRequest,
)
from backend.resources import Resources
from backend.submit import Submission

NAME = "product_images"

router = APIRouter(prefix="/products", tags=["products"], route_class=StrictRoute)


@router.post(
    "/{product_id:uuid}/images",
    status_code=202,
    response_model=views.Job,
    operation_id="create_product_images",
    responses=problems(400, 401, 404, 409, 413, 415, 422, 429, 503)
    | {202: accepted_as("The job.", job_links())},
)
def create_product_images(
    product_id: ProductId, body: ProductImagesRequest, resources: ResourcesDep, owner: RatedOwnerDep,
    idempotency_key: IdempotencyKey = None, cancel_after: CancelAfter = None,
) -> Response:  # fmt: skip
    """Fetches each URL, shrinks the image by `scale`, stores it, and notes the pair of input and output with
    the product. What is made stays with the product when the job is deleted. `409`: the product has no image.
    """
    given = {name: getattr(body, name) for name in ProductImagesRequest.model_fields}
    wanted = OneProductsImages.model_construct(product_id=product_id, **given)
    return accepted(_submit(resources, wanted, owner, idempotency_key, cancel_after), "/v1/jobs")


@router.post(
    "/images",
    status_code=202,
    response_model=views.Job,
    operation_id="create_all_product_images",
    responses=problems(400, 401, 409, 413, 415, 422, 429, 503) | {202: accepted_as("The job.", job_links())},
)
def create_all_product_images(
    body: AllProductImagesRequest, resources: ResourcesDep, owner: RatedOwnerDep,
    idempotency_key: IdempotencyKey = None, cancel_after: CancelAfter = None,
) -> Response:  # fmt: skip
    """The same for all your products in one job, for up to 5,000 images; the job's `input.left` says how many
    were too many: ask again for them. `409`: there is nothing to be made.
    """
    return accepted(_submit(resources, body, owner, idempotency_key, cancel_after), "/v1/jobs")


def submit_all(resources: Resources, body: AllProductImagesRequest, owner: str) -> Submission:
    """The same. Raises as `submit.submit`, and `Conflict` where there is nothing to do."""
    return _submit(resources, body, owner, None, None)


def _submit(
    resources: Resources,
    body: ProductMediaRequest,
    owner: str,
    idempotency_key: str | None,
    cancel_after: str | None,
) -> Submission:
    return submit.submit(
        resources,
        PIPELINES[NAME],
        body,
        owner=owner,
        idempotency_key=idempotency_key,
        cancel_after_s=seconds(cancel_after),
        answer=lambda job: views.as_json(views.render(resources, job)),
    )

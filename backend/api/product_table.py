"""`/v1/products/export` and `/import`: all products as a table (CSV), out and in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, BinaryIO, cast
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from backend import views
from backend.api import product_images
from backend.api.bounded_request import BoundedRequest, is_utf8
from backend.api.dependencies import OwnerDep, RatedOwnerDep, ResourcesDep
from backend.api.documentation import header, problems
from backend.errors import Conflict, InvalidRequest, UnsupportedMediaType
from backend.media_urls import media_url
from backend.pipelines.product_images import AllProductImagesRequest
from backend.products import importing, writing
from backend.resources import Resources
from backend.views import now

HELD_IN_MEMORY = 1024 * 1024  # bytes of a table that comes; the rest lies on disk

router = APIRouter(prefix="/products", tags=["products"])


class FailedRow(views.View):
    """A row of the table that was not taken."""

    line: int = Field(description="Of the file, from 1, where the row begins.", examples=[3])
    serial_number: str = Field(description="As it stands there; empty where it can't be told.")
    detail: str = Field(description="Why, for people.", examples=["product name: must not be blank"])


class ProductImport(views.View):
    """What a table of products came to."""

    created: int = Field(description="Rows with a new serial number.")
    updated: int = Field(description="Rows that changed a product.")
    unchanged: int = Field(description="Rows that say what is known already.")
    failed_count: int = Field(description="Rows that were not taken. The others were.")
    failed: list[FailedRow] = Field(description="Those, in the file's order; the first 100.")
    task_id: UUID | None = Field(
        description="The job that makes the images, where `images` asked for it and some are to be made."
    )


# -- out ----------------------------------------------------------------------------------------------

_TABLE: dict[str, Any] = {"schema": {"type": "string"}}


@router.get(
    "/export",
    operation_id="export_products",
    response_class=Response,
    responses=problems(401, 503)
    | {
        200: {
            "description": "The table.",
            "content": {"text/csv": _TABLE},
            "headers": {"Content-Disposition": header("Its name.")},
        }
    },
)
def export_products(resources: ResourcesDep, owner: OwnerDep) -> Response:
    """All your products as CSV (UTF-8, RFC 4180), oldest first: serial number, product name, input image
    URLs, output image URLs. Import it, and nothing changes.
    """
    pieces = writing.write(resources.db, owner, lambda key: media_url(resources, key))
    begun = [next(pieces), next(pieces, "")]  # here an error is still an answer
    return StreamingResponse(
        chain(begun, pieces),
        media_type="text/csv; charset=utf-8; header=present",
        headers={
            "Content-Disposition": 'attachment; filename="products.csv"',
            "Cache-Control": "private, no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


# -- in -----------------------------------------------------------------------------------------------

_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary", "description": "The table."}},
    }
}


@router.post(
    "/import",
    operation_id="import_products",
    responses=problems(400, 401, 408, 413, 415, 422, 429, 503),
    openapi_extra={
        "requestBody": {"required": True, "content": {"text/csv": _TABLE, "multipart/form-data": _FORM}}
    },
)
async def import_products(
    request: Request,
    resources: ResourcesDep,
    owner: RatedOwnerDep,
    *,
    images: Annotated[
        bool, Query(description="Make the images too, as one job: of all your products that have none yet.")
    ] = False,
    scale: Annotated[float, Query(ge=0.01, le=1, description="Of these images.")] = 0.5,
) -> ProductImport:
    """Products from a CSV file, as the body or as `file` of a form. The first line names the columns, in any
    order: serial number, product name, input image URLs. A row with a serial number that you have changes
    that product, others make one; a bad row is told with its line, and keeps no good one out. May be sent
    twice.
    """
    async with _received(request, resources) as file:
        taken = await run_sync(_take, resources, owner, file)
    if images:
        taken.task_id = await run_sync(_make_images, resources, owner, scale)
    return taken


def _make_images(resources: Resources, owner: str, scale: float) -> UUID | None:
    try:
        return product_images.submit_all(resources, AllProductImagesRequest(scale=scale), owner).job_id
    except Conflict:  # there is nothing to do
        return None


def _take(resources: Resources, owner: str, file: BinaryIO) -> ProductImport:
    report = importing.import_table(resources.db, resources.storage, owner, file, now())
    return ProductImport(
        created=report.created, updated=report.updated, unchanged=report.unchanged,
        failed_count=report.failed_count,
        failed=[
            FailedRow(line=one.line, serial_number=one.serial_number, detail=one.detail)
            for one in report.failed
        ],
        task_id=None,
    )  # fmt: skip


@asynccontextmanager
async def _received(request: Request, resources: Resources) -> AsyncIterator[BinaryIO]:
    """The table that the request holds, whole and on disk. Raises what is wrong with the request."""
    bounded = BoundedRequest(request, resources.settings.max_import_bytes, "A table")
    content_type = request.headers.get("content-type", "")
    kind = content_type.lower().partition(";")[0].strip() if is_utf8(content_type) else ""
    if kind == "multipart/form-data":
        async with _form_file(bounded) as file:
            yield file
    elif kind == "text/csv":
        with SpooledTemporaryFile(HELD_IN_MEMORY) as spooled:
            await _spool(bounded, spooled)
            yield cast("BinaryIO", spooled)
    else:
        raise UnsupportedMediaType("A table comes as text/csv in UTF-8, or as `file` of multipart/form-data.")


@asynccontextmanager
async def _form_file(request: BoundedRequest) -> AsyncIterator[BinaryIO]:
    try:
        form = await request.form(max_files=1, max_fields=10)
    except HTTPException as exc:
        raise HTTPException(400) from exc  # the parser's words are about its own limits
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest("The form has no file that is called `file`.")
        yield file.file
    finally:
        await form.close()


async def _spool(request: BoundedRequest, file: "SpooledTemporaryFile[bytes]") -> None:
    """Writes the body as it comes, in large pieces: each takes a thread."""
    held = bytearray()
    async for piece in request.stream():
        held += piece
        if len(held) >= HELD_IN_MEMORY:
            await run_sync(file.write, bytes(held))
            held.clear()
    await run_sync(file.write, bytes(held))

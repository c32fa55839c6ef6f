"""`POST /v1/uploads`: files in the request, or the names of those that are to come."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from backend import submit, views
from backend.api import present
from backend.api.bounded_request import BoundedRequest, is_utf8
from backend.api.dependencies import RatedOwnerDep, ResourcesDep
from backend.api.documentation import job_links, problems
from backend.api.json_body import StrictRequest, is_json, strict_json
from backend.api.pipelines import CancelAfter, IdempotencyKey, accepted, accepted_as, seconds
from backend.errors import (
    FieldError,
    InvalidRequest,
    UnsupportedMediaType,
)
from backend.pipelines import PIPELINES
from backend.pipelines.uploads import (
    MAX_FILENAME_CHARACTERS,
    MAX_FILES,
    ReceivedUploads,
    UploadsRequest,
)
from backend.settings import Settings

NAME = "uploads"
OPTIONS = "request"  # the form's field that is not a file
MAX_OPTIONS_BYTES = 64 * 1024

# Bytes of each file that are held in memory before it is on disk. Starlette has no other way to say so.
MultiPartParser.spool_max_size = 64 * 1024
READ_AT_ONCE = 1024 * 1024

Schema = TypeVar("Schema", bound=UploadsRequest)

_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": MAX_FILES,
            "description": "PNG, JPEG, WebP, AVIF or GIF; each a part of its own with a file name.",
        },
        OPTIONS: {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "The same as the JSON body without `files`, as text or as a blob.",
            "examples": ['{"thumbnail_sizes": [200, 64]}'],
        },
    },
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {"schema": {"$ref": "#/components/schemas/UploadsRequest"}},
    },
}

router = APIRouter(tags=["pipelines"])


@router.post(
    f"/{NAME}",
    status_code=202,
    response_model=views.Job,
    summary=PIPELINES[NAME].summary,
    description=PIPELINES[NAME].description,
    operation_id="create_uploads",
    responses=problems(400, 401, 408, 409, 413, 415, 422, 429, 503)
    | {202: accepted_as("The job.", job_links())},
    openapi_extra={"requestBody": _BODY},
)
async def create_uploads(
    request: Request, resources: ResourcesDep, owner: RatedOwnerDep,
    idempotency_key: IdempotencyKey = None, cancel_after: CancelAfter = None,
) -> Response:  # fmt: skip
    """Takes the files, or says where to send them."""
    form: FormData | None = None
    try:
        if is_json(request.headers.get("content-type", "")):
            body = _validated(UploadsRequest, await _json(request))
        else:
            form = await _received(request, resources.settings)
            body = await run_in_threadpool(_uploads_of, form)
        done = await run_in_threadpool(
            submit.submit,
            resources,
            PIPELINES[NAME],
            body,
            owner=owner,
            idempotency_key=idempotency_key,
            cancel_after_s=seconds(cancel_after),
            answer=lambda job: views.as_json(views.render(resources, job, waiting_for=present.why_held(job))),
        )
    finally:
        if form is not None:
            await form.close()
    return accepted(done, "/v1/jobs")


async def _json(request: Request) -> object:
    try:
        return await StrictRequest(request.scope, request.receive).json()
    except json.JSONDecodeError as exc:
        raise RequestValidationError(
            [{"type": "json_invalid", "loc": ("body", exc.pos), "msg": exc.msg}]
        ) from exc


def _validated(schema: type[Schema], given: object) -> Schema:
    try:
        return schema.model_validate(given)
    except ValidationError as exc:
        raise RequestValidationError(
            [error | {"loc": ("body", *error["loc"])} for error in exc.errors()]
        ) from exc


async def _received(request: Request, settings: Settings) -> FormData:
    """The form; its files are on disk. Raises what is wrong with it as a whole."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send multipart/form-data, or JSON.")
    if not is_utf8(request.headers["content-type"]):
        raise UnsupportedMediaType("A form comes in UTF-8.")
    bounded = BoundedRequest(request, settings.max_upload_request_bytes, "A request with files")
    try:
        return await bounded.form(max_files=MAX_FILES + 1, max_fields=1, max_part_size=MAX_OPTIONS_BYTES)
    except HTTPException as exc:  # the parser's: too many parts, or not what it says it is
        if "Too many files" in str(exc.detail):  # it counts the options, too
            raise _refused(f"there are more than {MAX_FILES} files", "files") from exc
        raise _refused(str(exc.detail)) from exc


def _uploads_of(form: FormData) -> ReceivedUploads:
    """What came, as a request. Raises `InvalidRequest` and `RequestValidationError`."""
    options: Any = {}
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if name == OPTIONS:
            options = _options(value)
        elif isinstance(value, UploadFile):
            files.append(value)
        else:
            raise _refused(f"{name!r} is no file, and no field that is known", name)
    if not files:
        raise _refused("there is no file in it: each part of one has a filename", "files")
    received = _validated(ReceivedUploads, options | {"files": [_described(file) for file in files]})
    return received.read_by([_reader(file) for file in files])


def _described(file: UploadFile) -> dict[str, Any]:
    return {"filename": _clean(file.filename), "bytes": file.size or 0, "sha256": _digest(file)}


def _options(given: str | UploadFile) -> dict[str, Any]:
    """As text; or as a file, which is what browsers make of a `Blob`."""
    text = given if isinstance(given, str) else given.file.read(MAX_OPTIONS_BYTES + 1)
    if len(text) > MAX_OPTIONS_BYTES:
        raise _refused(f"has more than {MAX_OPTIONS_BYTES} bytes", OPTIONS)
    try:
        options = strict_json(text)
    except json.JSONDecodeError as exc:
        raise _refused("is not JSON", OPTIONS) from exc
    if not isinstance(options, dict) or "files" in options:
        raise _refused("must be a JSON object, without files: they are parts of the form", OPTIONS)
    return cast("dict[str, Any]", options)


def _clean(filename: str | None) -> str:
    """The name alone: no folders, no control characters; browsers send all sorts."""
    name = PureWindowsPath(PurePosixPath(filename or "").name).name
    kept = "".join(one for one in name if unicodedata.category(one) not in ("Cc", "Cs", "Cf"))
    return kept.strip()[:MAX_FILENAME_CHARACTERS] or "file"


def _digest(file: UploadFile) -> str:
    file.file.seek(0)
    digest = hashlib.sha256()
    while piece := file.file.read(READ_AT_ONCE):
        digest.update(piece)
    return digest.hexdigest()


def _reader(file: UploadFile) -> Callable[[], bytes]:
    def read() -> bytes:
        file.file.seek(0)
        return file.file.read()

    return read


def _refused(detail: str, field: str = "") -> InvalidRequest:
    return InvalidRequest(
        "The form can't be used.", errors=(FieldError(f"#/{field}" if field else "#", detail),)
    )

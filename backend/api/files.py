"""`/v1/files`: signed downloads and uploads, where objects are files of this machine."""

import time
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.requests import ClientDisconnect

from backend.api.bounded_request import in_time
from backend.api.conditions import RangeNotSatisfiable, http_date, is_unchanged, wanted_part
from backend.api.documentation import header, problems
from backend.api.file_response import FileResponse
from backend.api.problems import answer
from backend.errors import NotFound, PayloadTooLarge, UnsupportedMediaType
from backend.storage.base import StoredObject
from backend.storage.draft import Draft
from backend.storage.local import ROUTE, LocalStorage, OpenFile
from backend.storage.signing import Permit

WRITTEN_AT_ONCE = 1024 * 1024  # bytes

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TYPES = ("image/webp", "image/png", "image/jpeg", "image/avif", "application/octet-stream")
_IMAGES: dict[str, Any] = {"content": dict.fromkeys(_TYPES, _BINARY)}
_ETAG: dict[str, Any] = {"ETag": header("Another one for other bytes.")}
_CACHED = _ETAG | {
    "Cache-Control": header("Private, for as long as the URL is valid."),
    "Last-Modified": header("When it was stored."),
    "Accept-Ranges": header("`bytes`."),
    "Content-Disposition": header("Its name, and whether to show or to save it."),
}
_RANGED = _CACHED | {"Content-Range": header("Which bytes these are, and of how many.")}
DOWNLOADS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The object.", "headers": _CACHED, **_IMAGES},
    206: {"description": "The part that `Range` asked for.", "headers": _RANGED, **_IMAGES},
    304: {"description": "You have it already.", "headers": _CACHED},
    **problems(403, 404, 416, 422, 503),
}
_UPLOADS: dict[int | str, dict[str, Any]] = {
    201: {"description": "Stored.", "headers": _ETAG},
    204: {"description": "Stored, in place of what was there.", "headers": _ETAG},
    **problems(403, 404, 408, 413, 415, 422, 503),
}

CONDITIONS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": description,
    }
    for name, description in (
        ("Range", "One range of bytes: `bytes=0-1023`."),
        ("If-Range", "The `ETag` or date of the part you have; another version is sent whole."),
        ("If-None-Match", "The `ETag` you have."),
        ("If-Modified-Since", "The date you have."),
    )
]

router = APIRouter(prefix=ROUTE.rstrip("/"), tags=["files"])


async def _get_storage(request: Request) -> LocalStorage:
    """The storage, if it is one whose objects the API serves. Raises `NotFound`."""
    storage = request.app.state.resources.storage
    if not isinstance(storage, LocalStorage):
        raise NotFound("Objects are not served here.")
    return storage


StorageDep = Annotated[LocalStorage, Depends(_get_storage)]
Key = Annotated[str, Path(description="The object's name; it has slashes.")]
Expires = Annotated[int, Query(ge=0, lt=10**12, description="Unix time; part of the signature.")]
Signature = Annotated[str, Query(description="As it came in the URL.")]


# -- download -----------------------------------------------------------------------------------------


@router.head("/{key:path}", include_in_schema=False)
@router.get(
    "/{key:path}",
    operation_id="download_file",
    response_class=Response,
    responses=DOWNLOADS,
    openapi_extra={"parameters": CONDITIONS},
)
async def download_file(
    request: Request,
    storage: StorageDep,
    key: Key,
    expires: Expires = 0,
    signature: Signature = "",
    *,
    download: Annotated[bool, Query(description="Save it, rather than show it.")] = False,
) -> Response:
    """The object itself. URLs come signed from the API; they need no key."""
    storage.verify(Permit("GET", key, expires), signature)
    left = max(expires - int(time.time()), 0)
    return await serve(
        request, storage, key, cache_control=f"private, max-age={left}, immutable", download=download
    )


async def serve(
    request: Request, storage: LocalStorage, key: str, *, cache_control: str, download: bool
) -> Response:
    """The object, or the part of it that is asked for."""
    opened = await run_sync(storage.open, key)
    etag = f'"{opened.meta.etag}"'
    headers = _headers(opened, etag, cache_control, "attachment" if download else "inline")
    if is_unchanged(request.headers, etag, opened.modified):
        opened.close()
        return Response(status_code=304, headers=headers)
    size, part = opened.meta.bytes, None
    try:
        if request.method == "GET":
            part = wanted_part(request.headers, size, etag, opened.modified)
    except RangeNotSatisfiable:
        opened.close()
        return _refuse_range(request, size)
    return FileResponse(opened, part, headers)


def _headers(opened: OpenFile, etag: str, cache_control: str, disposition: str) -> dict[str, str]:
    name = "-".join(opened.meta.key.split("/")[-2:])  # every original is called "original"
    return {
        "ETag": etag,
        "Last-Modified": http_date(opened.modified),
        "Cache-Control": cache_control,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'{disposition}; filename="{name}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",  # pages of any site may show it
    }


def _refuse_range(request: Request, size: int) -> Response:
    return answer(
        request,
        status=416,
        code="range_not_satisfiable",
        title="Range not satisfiable",
        detail=f"The range lies outside of the object, which has {size} bytes.",
        headers={"Content-Range": f"bytes */{size}"},
    )


# -- upload -------------------------------------------------------------------------------------------


@router.put(
    "/{key:path}",
    operation_id="upload_file",
    status_code=201,
    response_class=Response,
    responses=_UPLOADS,
    openapi_extra={"requestBody": {"required": True, **_IMAGES}},
)
async def upload_file(
    request: Request,
    storage: StorageDep,
    key: Key,
    expires: Expires = 0,
    signature: Signature = "",
    content_type: Annotated[str, Query(description="Part of the signature.")] = "",
    max_bytes: Annotated[int, Query(ge=0, lt=10**15, description="Part of the signature.")] = 0,
) -> Response:
    """Stores an object, whole or not at all. URLs come signed with the task; they need no key."""
    permit = Permit("PUT", key, expires, content_type, max_bytes)
    storage.verify(permit, signature)
    _check_headers(request, permit)
    draft = await run_sync(storage.draft)
    try:
        rest = await _receive(request, storage, draft, max_bytes)
        is_new, stored = await run_sync(_commit, storage, draft, rest, key)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    finally:
        draft.discard()  # here and now: when this task is cancelled, it gets no thread any more
    return Response(status_code=201 if is_new else 204, headers={"ETag": f'"{stored.etag}"'})


def _check_headers(request: Request, permit: Permit) -> None:
    """Raises what can be known before the body comes."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != permit.content_type:
        raise UnsupportedMediaType(f"This URL takes {permit.content_type}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must come as it is, without a Content-Encoding.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > permit.max_bytes:
        raise _too_large(permit.max_bytes)


def _commit(storage: LocalStorage, draft: Draft, rest: bytes, key: str) -> tuple[bool, StoredObject]:
    """Whether the object is new, and what it is now."""
    storage.write_draft(draft, rest)
    is_new = storage.commit_draft(draft, key)
    return is_new, storage.stat(key)


async def _receive(request: Request, storage: LocalStorage, draft: Draft, max_bytes: int) -> bytes:
    """Writes the body as it comes, in large pieces: each takes a thread. What is left to be written.

    Raises `PayloadTooLarge`, `UploadTimedOut`, `ClientDisconnect`.
    """
    held = bytearray()
    async for piece in in_time(request.stream()):
        if draft.bytes + len(held) + len(piece) > max_bytes:
            raise _too_large(max_bytes)
        held += piece
        if len(held) >= WRITTEN_AT_ONCE:
            await run_sync(storage.write_draft, draft, bytes(held))
            held.clear()
    return bytes(held)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"This URL takes at most {max_bytes} bytes.")

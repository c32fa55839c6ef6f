"""`GET /v1/media/{key}`: images by URLs that last. A CDN may stand before it."""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response

from backend import media_urls
from backend.api.dependencies import ResourcesDep
from backend.api.documentation import header
from backend.api.files import CONDITIONS, DOWNLOADS, serve
from backend.storage.base import StoredObject
from backend.storage.keys import check_key
from backend.storage.local import LocalStorage

FOR_EVER = "public, max-age=31536000, immutable"  # the name says what is in it
_REDIRECT: dict[str, Any] = {
    "description": "Where the object is for now.",
    "headers": {"Location": header("Its URL."), "Cache-Control": header("For how long it is good.")},
}

router = APIRouter(prefix=media_urls.ROUTE.rstrip("/"), tags=["files"])


@router.head("/{key:path}", include_in_schema=False)
@router.get(
    "/{key:path}",
    operation_id="download_media",
    response_class=Response,
    responses=DOWNLOADS | {307: _REDIRECT},
    openapi_extra={"parameters": CONDITIONS},
)
async def download_media(
    request: Request,
    resources: ResourcesDep,
    key: Annotated[str, Path(description="The object's name; it has slashes.")],
    signature: Annotated[str, Query(description="As it came in the URL.")] = "",
    *,
    download: Annotated[bool, Query(description="Save it, rather than show it.")] = False,
) -> Response:
    """The image itself, or where it is. The URL needs no key, and is good until the image is deleted."""
    media_urls.verify(resources, check_key(key), signature)
    storage = resources.storage
    if isinstance(storage, LocalStorage):
        return await serve(request, storage, key, cache_control=FOR_EVER, download=download)
    if request.method == "HEAD":  # what is signed for a GET is refused to it
        return _described(await run_sync(storage.stat, key))
    ttl = resources.settings.download_url_ttl_s
    signed = await run_sync(lambda: storage.download_url(key, expires_in=ttl))
    kept = f"public, max-age={min(ttl // 2, 3600)}"
    return Response(status_code=307, headers={"Location": signed.url, "Cache-Control": kept})


def _described(found: StoredObject) -> Response:
    headers = {"Content-Length": str(found.bytes), "Cache-Control": FOR_EVER}
    return Response(media_type=found.content_type, headers=headers)

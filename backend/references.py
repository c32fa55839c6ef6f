"""What images may start from, a picture and perhaps a mask: checked at submit, and as jobs tell of them."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backend.errors import FieldError, ImageUnreadable, InvalidRequest, TargetRefused
from backend.images.opening import content_type_of
from backend.images.reference import FORMATS
from backend.jobs import queries
from backend.jobs.ids import ROLES, Role
from backend.resources import Resources
from contract.messages import Task

MAX_DATA_HEAD = 200  # characters before the comma of a data URI

WORDS: Mapping[Role, str] = {"reference": "The reference image", "mask": "The mask"}


@dataclass(frozen=True)
class Accepted:
    """A reference or a mask that may be used, as far as can be said before it is fetched."""

    input: dict[str, Any]  # as the job shows it; bytes are described
    data: bytes | None = None  # the file, where it came in the request


def roles(job_input: Mapping[str, Any]) -> list[Role]:
    """Which of them the job has."""
    return [role for role in ROLES if job_input.get(role)]


def task_of(job_input: Mapping[str, Any]) -> Task:
    """What follows from them."""
    if job_input.get("mask"):
        return "inpainting"
    return "image-to-image" if job_input.get("reference") else "text-to-image"


def is_data(given: Mapping[str, Any]) -> bool:
    """Whether the file came in the request itself."""
    return str(given.get("url", "")).startswith("data:")


def accept(
    resources: Resources, role: Role, *, url: str | None, image_id: UUID | None, owner: str
) -> Accepted:
    """Checks one of them. Raises `InvalidRequest` with a pointer."""
    if image_id is not None:
        return _accept_image(resources, role, image_id, owner)
    assert url is not None
    if url.startswith("data:"):
        return _accept_data(resources, role, url)
    try:
        resources.downloader.check(url)
    except TargetRefused as exc:
        raise _refused(role, "url", exc.detail) from exc
    return Accepted({"url": url})


def _accept_image(resources: Resources, role: Role, image_id: UUID, owner: str) -> Accepted:
    with resources.db.read_scope() as session:
        image = queries.completed_image(session, image_id, owner)
    if image is None:
        raise _refused(role, "image_id", "no completed image of yours has this id")
    return Accepted({"image_id": str(image_id)})


def _accept_data(resources: Resources, role: Role, url: str) -> Accepted:
    data = _decoded(role, url)
    settings = resources.settings
    if len(data) > settings.max_reference_bytes:
        raise _refused(role, "url", f"must have at most {settings.max_reference_bytes} bytes")
    try:
        content_type = content_type_of(data, max_pixels=settings.max_image_pixels, formats=FORMATS)
    except ImageUnreadable as exc:
        raise _refused(role, "url", exc.detail) from exc
    digest = hashlib.sha256(data).hexdigest()
    return Accepted({"url": f"data:{content_type}", "bytes": len(data), "sha256": digest}, data)


def _decoded(role: Role, url: str) -> bytes:
    head, _, body = url.partition(",")
    if len(head) > MAX_DATA_HEAD or not head.lower().endswith(";base64"):
        raise _refused(role, "url", "a data URI must begin like data:image/png;base64,")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _refused(role, "url", "what follows the comma is not valid base64") from exc


def _refused(role: Role, part: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{WORDS[role]} can't be used.", errors=(FieldError(f"#/{role}/{part}", detail),))

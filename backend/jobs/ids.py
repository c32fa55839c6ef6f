"""Ids and keys, derived from job and index, so that each step may run twice and leave the same result."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID, uuid5

import uuid_utils.compat

from contract.messages import OutputFormat

Role = Literal["reference", "mask"]
JOBS = "jobs/"  # how all keys begin
ROLES: tuple[Role, ...] = ("reference", "mask")


def new_id() -> UUID:
    """A UUIDv7: unique, and in the order of creation."""
    return uuid_utils.compat.uuid7()


def new_job_id() -> UUID:
    """A UUIDv7, too."""
    return new_id()


def image_id(job_id: UUID, index: int) -> UUID:
    """Id of the row of one image."""
    return uuid5(job_id, f"image/{index}")


def item_id(job_id: UUID, index: int) -> UUID:
    """Id of the row of one file from outside."""
    return uuid5(job_id, f"item/{index}")


def image_task_id(job_id: UUID, index: int, run: int) -> str:
    """Id of the Celery task that makes one image in one run of the job."""
    return str(uuid5(job_id, f"image/{index}/run/{run}"))


def webhook_id(job_id: UUID, seq: int) -> str:
    """What receivers know an event by: the same for each of them, and each time."""
    return f"msg_{job_id.hex}_{seq}"


def folder(job_id: UUID) -> str:
    """How all keys of the job begin."""
    return f"{JOBS}{job_id}/"


def job_of(key: str) -> UUID | None:
    """The job whose key it is; None: nobody's."""
    name, slash, _ = key.removeprefix(JOBS).partition("/")
    try:
        job_id = UUID(name)
    except ValueError:
        return None
    return job_id if slash and key.startswith(folder(job_id)) else None


def original_key(job_id: UUID, index: int, output_format: OutputFormat) -> str:
    """Key of an original."""
    return f"jobs/{job_id}/{index:03d}/original.{output_format}"


def thumbnail_key(job_id: UUID, index: int, size: int, extension: str) -> str:
    """Key of the thumbnail whose longest side is `size` pixels."""
    return f"jobs/{job_id}/{index:03d}/thumbnail-{size}.{extension}"


def reference_key(job_id: UUID, role: Role) -> str:
    """Key of what the job's images start from, as nodes get it."""
    return f"jobs/{job_id}/{role}.png"


def given_key(job_id: UUID, role: Role) -> str:
    """Key of the same as it came in the request, where it did."""
    return f"jobs/{job_id}/{role}-given.bin"


def upload_key(job_id: UUID, index: int) -> str:
    """Key of a file as it was uploaded; nobody is served it."""
    return f"jobs/{job_id}/{index:03d}/given.bin"


def item_folder(job_id: UUID, index: int) -> str:
    """How the keys of all begin that is made of an upload."""
    return f"jobs/{job_id}/{index:03d}/"


def reference_keys(job_id: UUID, roles: Sequence[Role]) -> list[str]:
    """Every key under which they may be."""
    return [key(job_id, role) for role in roles for key in (reference_key, given_key)]


def object_keys(job_id: UUID, indexes: range, output_format: OutputFormat, sizes: Sequence[int]) -> list[str]:
    """Every key that the job's images can have, also of those that no row knows of (yet)."""
    keys: list[str] = []
    for index in indexes:
        keys.append(original_key(job_id, index, output_format))
        keys.extend(thumbnail_key(job_id, index, size, ext) for size in sizes for ext in ("webp", "avif"))
    return keys

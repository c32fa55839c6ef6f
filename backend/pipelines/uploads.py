"""Files in, optimized images with thumbnails out."""

from collections.abc import Callable
from typing import Annotated

from celery.canvas import Signature
from pydantic import ConfigDict, Field, JsonValue, PrivateAttr

from backend.jobs.faults import Fault
from backend.jobs.items import Source
from backend.jobs.models import Job
from backend.pipelines.base import MediaRequest, Prepared, RequestModel, Text
from backend.resources import Resources
from backend.tasks.items import process_items

MAX_FILES = 100
MAX_FILENAME_CHARACTERS = 255

_EXAMPLE: dict[str, JsonValue] = {"files": [{"filename": "shop.jpg"}], "thumbnail_sizes": [200]}


class FileToCome(RequestModel):
    """A file that is sent to the URL that the answer names."""

    filename: Annotated[Text, Field(min_length=1, max_length=MAX_FILENAME_CHARACTERS)] = Field(
        description="As you call it; it comes back with the item.", examples=["shop.jpg"]
    )


class UploadsRequest(MediaRequest):
    """Files that are still to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    files: list[FileToCome] = Field(min_length=1, max_length=MAX_FILES)


class ReceivedFile(FileToCome):
    """A file that came in the request."""

    bytes: int
    sha256: str


class ReceivedUploads(UploadsRequest):
    """Files that came in the request."""

    files: list[ReceivedFile] = Field(min_length=1, max_length=MAX_FILES)  # type: ignore[assignment]
    _readers: list[Callable[[], bytes]] = PrivateAttr(default_factory=list)  # of the same order

    def read_by(self, readers: list[Callable[[], bytes]]) -> "ReceivedUploads":
        """The same, with what reads the files."""
        self._readers = readers
        return self


class UploadsPipeline:
    """process_items, again and again until nothing is left to do."""

    name = "uploads"
    has_route = False  # files come as multipart/form-data: `api.uploads`
    summary = "Upload images"
    description = (
        "Takes images, up to 100 at once, and makes each small and clean: upright, sRGB, without EXIF, "
        "places or comments, re-encoded where that saves bytes and doesn't show. With thumbnails, by default "
        "one that fits into 200x200. Send the files as `multipart/form-data`; or name them as JSON, send "
        "each to its item's `upload.url` by a PUT, and `continue` the job."
    )
    request_schema = UploadsRequest

    def prepare(
        self,
        request: UploadsRequest,
        resources: Resources,
        *,
        owner: str,  # noqa: ARG002 - the protocol's
    ) -> Prepared:
        """One item for each file; those that can't be taken have failed, and are in nobody's way."""
        given = request.model_dump(mode="json", exclude={"webhook", "metadata"})
        if not isinstance(request, ReceivedUploads):
            sources = [Source(filename=file.filename) for file in request.files]
            return Prepared(given, total=len(sources), sources=sources, held=True)
        limit = resources.settings.max_file_bytes
        faults = [_fault(file, limit) for file in request.files]
        return Prepared(
            given,
            total=len(faults),
            sources=[
                Source(filename=file.filename, fault=fault)
                for file, fault in zip(request.files, faults, strict=True)
            ],
            uploads={index: read for index, read in enumerate(request._readers) if faults[index] is None},
        )

    def canvas(self, job: Job, *, planned: bool) -> Signature:  # noqa: ARG002 - there are no prompts
        """One step, that sends itself on."""
        step: Signature = process_items.si(job_id=str(job.id), run=job.run)
        return step

    def object_keys(self, job: Job) -> list[str]:  # noqa: ARG002 - the protocol's
        """They are listed."""
        return []


def _fault(file: ReceivedFile, limit: int) -> Fault | None:
    if file.bytes == 0:
        return Fault("file_empty", "The file is empty.", retryable=False)
    if file.bytes > limit:
        return Fault(
            "file_too_large", f"The file is larger than the {limit} bytes that are taken.", retryable=False
        )
    return None

"""Finishes a picture off the engine thread: encodes it and stores it where the message says."""

import hashlib
import time
from dataclasses import dataclass

from contract.messages import CONTENT_TYPES, GenerateImage
from gpu_worker.encode import encode
from gpu_worker.engines.base import Picture
from gpu_worker.spoil import Spoil, unspoiled
from gpu_worker.upload import Uploader


@dataclass(frozen=True)
class Stored:
    """A file that lies in the storage."""

    content_type: str
    size: int  # bytes
    sha256: str
    took_s: float  # file and upload
    upload_s: float


class Finisher:
    """May be used by many threads at once."""

    def __init__(self, uploader: Uploader, software: str, spoil: Spoil = unspoiled) -> None:
        self._uploader = uploader
        self._software = software
        self._spoil = spoil

    def finish(self, picture: Picture, message: GenerateImage, *, seconds_left: float) -> Stored:
        """Encodes and uploads. Raises `UploadFailed`."""
        begun = time.monotonic()
        content = encode(picture, message, self._software)
        encoded = time.monotonic()
        self._uploader.put(message.upload, self._spoil(content, message), seconds_left=seconds_left)
        stored = time.monotonic()
        return Stored(
            content_type=CONTENT_TYPES[message.output_format],
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            took_s=stored - begun,
            upload_s=stored - encoded,
        )

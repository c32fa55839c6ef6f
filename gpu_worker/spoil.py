"""The simulator's bad uploads: what happens to a file on its way into the storage."""

from collections.abc import Callable

from contract.messages import FailureCode, GenerateImage
from gpu_worker.engines.base import Failure
from gpu_worker.faults import AFTER_THE_ENGINE, Faults
from gpu_worker.upload import UploadFailed

Spoil = Callable[[bytes, GenerateImage], bytes]

NOT_STORED = Failure(
    FailureCode.UPLOAD_FAILED, "The image could not be stored: the simulator said so.", retryable=True
)


def unspoiled(content: bytes, message: GenerateImage) -> bytes:  # noqa: ARG001 - a `Spoil`
    """The file as it is."""
    return content


def spoil_by(faults: Faults) -> Spoil:
    """Cuts as many files as the faults say, or raises `UploadFailed` for them."""

    def spoil(content: bytes, message: GenerateImage) -> bytes:
        fault = upload_fault(faults, message.prompt, message.seed, message.run)
        if fault == "upload_failed":
            raise UploadFailed(NOT_STORED, "simulated")
        return content[: len(content) // 2] if fault == "bad_upload" else content

    return spoil if faults else unspoiled


def upload_fault(faults: Faults, prompt: str, seed: int, run: int) -> str | None:
    """What the upload of an image meets in a run, at each attempt."""
    fault = faults.met(prompt, seed, f"{run}:upload")
    return fault if fault in AFTER_THE_ENGINE else None

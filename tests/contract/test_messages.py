"""Messages are frozen, strict, and come out as they went in."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from contract.messages import (
    FailureCode,
    GeneratedImage,
    GenerateImage,
    ImageFailure,
    ImageResult,
    SignedUpload,
    Timings,
)

IDS: dict[str, Any] = {"job_id": UUID(int=1), "image_id": UUID(int=2), "index": 0, "run": 1}


def request(**values: Any) -> GenerateImage:
    now = datetime.now(UTC)
    given: dict[str, Any] = IDS | {
        "model": "sketch", "prompt": "ein Fuchs 🦊", "width": 64, "height": 64, "seed": 2**32 - 1,
        "output_format": "webp", "key": "k", "queued_at": now, "deadline": now,
        "upload": SignedUpload(url="https://x", expires_at=now, max_bytes=1),
    } | values  # fmt: skip
    return GenerateImage(**given)


def test_a_message_survives_the_wire() -> None:
    message = request()
    assert GenerateImage.model_validate(json.loads(json.dumps(message.to_wire()))) == message


@pytest.mark.parametrize("bad", [{"extra": 1}, {"seed": -1}, {"seed": 2**32}, {"width": 0}, {"index": -1}])
def test_what_is_wrong_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**bad)


def test_a_message_is_never_changed() -> None:
    with pytest.raises(ValidationError):
        request().prompt = "another"  # type: ignore[misc]


def test_a_result_is_one_of_two() -> None:
    results: TypeAdapter[Any] = TypeAdapter(ImageResult)
    made = GeneratedImage(
        **IDS, key="k", content_type="image/webp", bytes=1, sha256="0" * 64, width=1, height=1, seed=1,
        model="sketch", node="n", attempts=1, timings=Timings(),
    )  # fmt: skip
    lost = ImageFailure(**IDS, code=FailureCode.WORKER_LOST, message="Gone.", retryable=True)
    for result in (made, lost):
        assert results.validate_python(json.loads(json.dumps(result.to_wire()))) == result
    with pytest.raises(ValidationError):
        results.validate_python({"kind": "other"})

"""Messages for tests."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from contract.messages import GenerateImage, SignedDownload, SignedUpload
from gpu_worker.engines.base import ImageRequest


def upload_to(url: str = "http://127.0.0.1:9/u", *, expires_s: float = 3600, **changes: Any) -> SignedUpload:
    expires_at = datetime.now(UTC) + timedelta(seconds=expires_s)
    return SignedUpload(**{"url": url, "expires_at": expires_at, "max_bytes": 10_000_000, **changes})


def download_from(url: str, content: bytes, *, expires_s: float = 3600, **changes: Any) -> SignedDownload:
    fields: dict[str, Any] = {
        "url": url,
        "expires_at": datetime.now(UTC) + timedelta(seconds=expires_s),
        "max_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return SignedDownload(**{**fields, **changes})


def message(**changes: Any) -> GenerateImage:
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "job_id": uuid4(),
        "image_id": uuid4(),
        "index": 0,
        "run": 1,
        "model": "solid",
        "prompt": "a lighthouse",
        "width": 64,
        "height": 48,
        "seed": 7,
        "output_format": "png",
        "key": "jobs/0.png",
        "upload": upload_to(),
        "queued_at": now,
        "deadline": now + timedelta(seconds=60),
    }
    return GenerateImage(**{**fields, **changes})


def request(prompt: str = "p", *, model: str = "solid", width: int = 64, height: int = 48) -> ImageRequest:
    return ImageRequest(id=str(uuid4()), model=model, prompt=prompt, width=width, height=height, seed=1)


JOB_A, JOB_B = UUID(int=1), UUID(int=2)

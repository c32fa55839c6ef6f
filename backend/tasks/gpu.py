"""Signatures of what runs on GPU nodes; the code is theirs."""

import hashlib
from collections.abc import Sequence
from typing import Any

from celery import chord, group
from celery.canvas import Signature

from backend import references
from backend.celery_app import app
from backend.errors import ObjectNotFound, ReferenceUnavailable
from backend.jobs import ids
from backend.jobs.ids import Role
from backend.jobs.models import ImageGeneration, Job
from backend.resources import Resources
from backend.views import now
from contract.messages import CONTENT_TYPES, GenerateImage, LoraUse, SignedDownload
from contract.queues import GENERATE_IMAGE, gpu_queue, priority_of


def generate_image(message: GenerateImage, *, attempt: int = 0, priority: int = 0) -> Signature:
    """A clone of `generate_image` for one prompt, on its model's queue. `priority`: in the broker's words."""
    task_id = ids.image_task_id(message.job_id, message.index, message.run)
    if attempt:
        task_id = f"{task_id}-{attempt}"
    return app.signature(
        GENERATE_IMAGE,
        args=(message.to_wire(),),
        task_id=task_id,
        queue=gpu_queue(message.model),
        priority=priority,
        ignore_result=False,  # a chord counts its header by results
    )


def fan_out(
    parts: Resources, job: Job, images: Sequence[ImageGeneration], save: Signature, attempt: int = 0
) -> chord:
    """The chord of these images, each in its band. Raises `ReferenceUnavailable`."""
    start = _start(parts, job)
    clones = [
        generate_image(
            _message(parts, job, image, start), attempt=attempt, priority=_priority(parts, image.band)
        )
        for image in images
    ]
    return chord(group(clones), save, app=app)


def send_forward(parts: Resources, job: Job, images: Sequence[ImageGeneration]) -> None:
    """Sends images once more, beside their chord, which takes whatever was made by then.

    Raises `ReferenceUnavailable`, and what the broker raises.
    """
    start = _start(parts, job)
    for image in images:
        again = generate_image(_message(parts, job, image, start), priority=_priority(parts, image.band))
        again.apply_async(task_id=f"{again.id}-forward", ignore_result=True)


def _priority(parts: Resources, band: int | None) -> int:
    return priority_of(band or 0, parts.settings.broker_url)


def _start(parts: Resources, job: Job) -> dict[str, Any]:
    """What all images of the job start from, signed once for all."""
    return {
        "task": references.task_of(job.input),
        "strength": job.input.get("strength"),
        **{role: _signed(parts, job, role) for role in references.roles(job.input)},
    }


def _signed(parts: Resources, job: Job, role: Role) -> SignedDownload:
    """Read once more, so that nodes are told what they must get."""
    key = ids.reference_key(job.id, role)
    try:
        data = parts.storage.get(key, max_bytes=parts.settings.max_upload_bytes)
    except ObjectNotFound as exc:
        raise ReferenceUnavailable(f"{references.WORDS[role]} was deleted.") from exc
    signed = parts.storage.node_download_url(key, expires_in=parts.settings.upload_url_ttl_s)
    return SignedDownload(
        url=signed.url,
        expires_at=signed.expires_at,
        max_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _message(parts: Resources, job: Job, image: ImageGeneration, start: dict[str, Any]) -> GenerateImage:
    output_format = job.input["output_format"]
    key = ids.original_key(job.id, image.index, output_format)
    return GenerateImage(
        job_id=job.id,
        image_id=image.id,
        index=image.index,
        run=image.run,
        model=image.model,
        prompt=image.prompt,
        negative_prompt=job.input["negative_prompt"],
        title=job.input["title"],
        width=job.input["width"],
        height=job.input["height"],
        steps=job.input["steps"],
        guidance=job.input["guidance"],
        seed=image.seed,
        scheduler=job.input.get("scheduler"),
        loras=tuple(LoraUse(**lora) for lora in job.input.get("loras", ())),
        reproducible=job.input.get("reproducible", False),
        revision=job.input.get("revision"),
        preview=job.input.get("preview", False),
        **start,
        output_format=output_format,
        key=key,
        upload=parts.storage.upload_url(
            key,
            content_type=CONTENT_TYPES[output_format],
            max_bytes=parts.settings.max_upload_bytes,
            expires_in=parts.settings.upload_url_ttl_s,
        ),
        queued_at=now(),
        deadline=job.deadline_at,
    )

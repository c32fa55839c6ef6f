"""Signatures of what runs on GPU nodes; the code is theirs."""

from collections.abc import Sequence

from celery import chord, group
from celery.canvas import Signature

from backend.celery_app import app
from backend.jobs import ids
from backend.jobs.models import ImageGeneration, Job
from backend.resources import Resources
from backend.views import now
from contract.messages import CONTENT_TYPES, GenerateImage, LoraUse
from contract.queues import GENERATE_IMAGE, gpu_queue


def generate_image(message: GenerateImage, attempt: int = 0) -> Signature:
    """A clone of `generate_image` for one prompt, on the queue of its model."""
    task_id = ids.image_task_id(message.job_id, message.index, message.run)
    if attempt:
        task_id = f"{task_id}-{attempt}"
    return app.signature(
        GENERATE_IMAGE,
        args=(message.to_wire(),),
        task_id=task_id,
        queue=gpu_queue(message.model),
        ignore_result=False,  # a chord counts its header by results
    )


def fan_out(
    parts: Resources, job: Job, images: Sequence[ImageGeneration], save: Signature, attempt: int = 0
) -> chord:
    """The chord of these images."""
    return chord(
        group(generate_image(_message(parts, job, image), attempt) for image in images), save, app=app
    )


def _message(parts: Resources, job: Job, image: ImageGeneration) -> GenerateImage:
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

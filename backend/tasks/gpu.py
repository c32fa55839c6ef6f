"""The fan-out: what nodes are given. The code that makes images of it is theirs."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from backend import references
from backend.celery_app import BROKER_ERRORS, app
from backend.errors import BrokerUnavailable, ObjectNotFound, ReferenceUnavailable
from backend.jobs import admission, fairness, ids, store
from backend.jobs.ids import Role
from backend.jobs.models import ENDED, ImageGeneration, Job
from backend.resources import Resources
from backend.views import now
from contract.messages import CONTENT_TYPES, GenerateImage, LoraUse, SignedDownload
from contract.queues import GENERATE_IMAGE, gpu_queue, priority_of

if TYPE_CHECKING:
    from kombu import Producer
    from sqlalchemy.orm import Session


def release(parts: Resources, job_id: UUID) -> int:
    """Gives the nodes the job's images that they were not given yet; how many.

    Each is one message, in its band, with an id of its own. What the broker doesn't take stays to be given.
    Raises `ReferenceUnavailable`, `StorageUnavailable` or `BrokerUnavailable`.
    """
    with parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        if job is None or job.status in ENDED:
            return 0
        images = choose(parts, session, job)
    send(parts, job, images)
    return len(images)


def choose(parts: Resources, session: "Session", job: Job) -> list[ImageGeneration]:
    """Images of a locked job that nodes are given next: noted as sent, to be sent after the commit."""
    images = store.unsent(job)
    if limit := parts.settings.max_running_images_per_owner:
        images = images[: admission.may_run(session, job.owner, limit)]
    fairness.assign_bands(session, job, images)
    store.sending(images, now())
    return images


def release_next(parts: Resources, owner: str) -> None:
    """Images of the owner have ended: gives the nodes as many that were held back. Raises as `release`."""
    with parts.db.read_scope() as session:
        held_back = admission.held_back(session, owner)
    for job_id in held_back:
        if not release(parts, job_id):
            return


def send(parts: Resources, job: Job, images: Sequence[ImageGeneration]) -> None:
    """Publishes a `generate_image` for each of these images, which are noted as sent. Raises as `release`."""
    taken: set[UUID] = set()
    try:
        clones = messages(parts, job, images)
        with app.producer_pool.acquire(block=True) as producer:
            for image, message in zip(images, clones, strict=True):
                _publish(parts, image, message, producer)
                taken.add(image.id)
    except BROKER_ERRORS as exc:
        raise BrokerUnavailable from exc
    finally:
        if len(taken) < len(images):
            with parts.db.session_scope() as session:
                store.not_sent(session, {image.id for image in images} - taken)


def _publish(parts: Resources, image: ImageGeneration, message: GenerateImage, producer: "Producer") -> None:
    task_id = ids.image_task_id(image.job_id, image.index, image.run)
    app.send_task(
        GENERATE_IMAGE,
        (message.to_wire(),),
        task_id=task_id if image.sends == 1 else f"{task_id}-{image.sends}",
        queue=gpu_queue(image.model),
        priority=priority_of(image.band or 0, parts.settings.broker_url),
        ignore_result=True,
        argsrepr=f"({image.id})",  # Celery would write all of it down: that takes longer than to send it
        producer=producer,
    )


def messages(parts: Resources, job: Job, images: Sequence[ImageGeneration]) -> Iterator[GenerateImage]:
    """What nodes are told of these images, with fresh URLs, one after the other: a storage that signs them
    itself takes its time. Raises `ReferenceUnavailable` at the first, `StorageUnavailable` at any of them.
    """
    start = _start(parts, job) if images else {}
    for image in images:
        yield _message(parts, job, image, start)


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

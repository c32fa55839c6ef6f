"""The workflow as it is usually written, with Celery as it comes: images in base64 through its results.

A chain of the prompts and a mapper; the mapper starts a chord of one task per prompt, whose callback takes
the images out of the results, writes the files and the rows. And the same shape with tasks that do nothing.
"""

import base64
import os
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
import sqlalchemy as sa
from celery import Celery, chain, chord, group

from scripts.benchmarks.queue.fixed import IMAGES, ORIGINAL, THUMBNAIL, THUMBNAIL_SIZES

BROKER, DATABASE, FILES = "BENCH_BROKER", "BENCH_DATABASE", "BENCH_FILES"
ENDED = "bench:ended"  # counts jobs, of the shape alone

app = Celery("usual", broker=os.environ.get(BROKER), backend=os.environ.get(BROKER), set_as_current=False)
app.conf.task_routes = {"usual.generate_image": {"queue": "gpu"}, "bare.image": {"queue": "gpu"}}

metadata = sa.MetaData()
jobs = sa.Table(
    "jobs", metadata, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("status", sa.String(24)),
    sa.Column("message", sa.Text),
)  # fmt: skip
images = sa.Table(
    "images", metadata, sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True), sa.Column("prompt", sa.Text),
    sa.Column("status", sa.String(24)), sa.Column("key", sa.String(200)), sa.Column("thumbnails", sa.JSON),
)  # fmt: skip


@cache
def engine() -> sa.Engine:
    """Of this process."""
    return sa.create_engine(os.environ[DATABASE])


def submit(job_id: UUID, message: str) -> None:
    """As an endpoint would: a row, then the chain."""
    with engine().begin() as connection:
        connection.execute(jobs.insert().values(id=job_id, status="pending", message=message))
    chain(write_prompts.s(str(job_id), message), map_prompts.s(str(job_id))).apply_async()


@app.task(name="usual.write_prompts", shared=False)
def write_prompts(job_id: str, message: str) -> list[str]:
    """Rows of images, and their prompts."""
    prompts = [f"{message}, picture {index}" for index in range(IMAGES)]
    rows = [
        {"job_id": UUID(job_id), "index": index, "prompt": prompt, "status": "pending"}
        for index, prompt in enumerate(prompts)
    ]
    with engine().begin() as connection:
        connection.execute(jobs.update().where(jobs.c.id == UUID(job_id)).values(status="in_progress"))
        connection.execute(images.insert(), rows)
    return prompts


@app.task(name="usual.map_prompts", shared=False)
def map_prompts(prompts: list[str], job_id: str) -> str:
    """One task per prompt, and who takes their results."""
    header = group(generate_image.s(index, prompt) for index, prompt in enumerate(prompts))
    return str(chord(header, app=app)(save_images.s(job_id)).id)


@app.task(name="usual.generate_image", shared=False)
def generate_image(index: int, _prompt: str) -> dict[str, Any]:
    """The image is the result."""
    return {"index": index, "image": base64.b64encode(ORIGINAL).decode()}


@app.task(name="usual.save_images", shared=False)
def save_images(results: list[dict[str, Any]], job_id: str) -> list[str]:
    """Files first, then all rows at once."""
    keys = []
    with engine().begin() as connection:
        for result in results:
            key = _write(job_id, result["index"], base64.b64decode(result["image"]))
            keys.append(key)
            connection.execute(
                images.update()
                .where(images.c.job_id == UUID(job_id), images.c.index == result["index"])
                .values(status="completed", key=key, thumbnails=list(THUMBNAIL_SIZES))
            )
        connection.execute(jobs.update().where(jobs.c.id == UUID(job_id)).values(status="completed"))
    return keys


def _write(job_id: str, index: int, original: bytes) -> str:
    folder = Path(os.environ[FILES]) / job_id / f"{index:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "original.webp").write_bytes(original)
    for size in THUMBNAIL_SIZES:
        (folder / f"thumbnail-{size}.webp").write_bytes(THUMBNAIL)
    return f"{job_id}/{index:03d}/original.webp"


# -- the shape alone ----------------------------------------------------------------------------------


def submit_bare() -> None:
    """The same chain and chord, of tasks that do nothing."""
    chain(bare_prompts.s(), bare_map.s()).apply_async()


@app.task(name="bare.prompts", shared=False)
def bare_prompts() -> list[str]:
    """As many words as there are images."""
    return ["a prompt"] * IMAGES


@app.task(name="bare.map", shared=False)
def bare_map(prompts: list[str]) -> str:
    """The chord."""
    return str(chord(group(bare_image.s(prompt) for prompt in prompts), app=app)(bare_end.s()).id)


@app.task(name="bare.image", shared=False)
def bare_image(_prompt: str) -> None:
    """Nothing."""


@app.task(name="bare.end", shared=False)
def bare_end(_results: list[None]) -> None:
    """Nothing, but to be counted."""
    _counter().incr(ENDED)


@cache
def _counter() -> "redis.Redis":
    return redis.Redis.from_url(os.environ[BROKER])

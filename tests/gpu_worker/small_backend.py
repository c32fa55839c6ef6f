"""A worker process in the place of the backend: takes the reports of nodes, and the chord's callback."""

import os
from typing import Any
from uuid import uuid4

import redis
from celery import Celery, chord

from contract.messages import GenerateImage
from contract.queues import (
    DEFAULT_QUEUE,
    GENERATE_IMAGE,
    IMAGE_ENDED,
    IMAGE_STARTED,
    MEDIA_QUEUE,
    SAVE_IMAGES,
    celery_settings,
    gpu_queue,
)

URL_VARIABLE = "SMALL_BACKEND_URL"
FAN_OUT = "test.fan_out"
SAVES = "test:saves"  # one entry for each time that the callback was called


def create_app(url: str) -> Celery:
    app = Celery("small_backend", set_as_current=False)
    app.conf.update(celery_settings(url, url))
    return app


def fan_out(app: Celery, messages: list[GenerateImage]) -> str:
    """Has the backend publish the chord; the id of its end."""
    end = str(uuid4())
    app.send_task(FAN_OUT, ([message.to_wire() for message in messages], end), queue=DEFAULT_QUEUE)
    return end


def result_of(app: Celery, task_id: str) -> Any:
    """What a task has returned; None as long as it has not. Not an AsyncResult: those hold connections."""
    meta: dict[str, Any] = app.backend.get_task_meta(task_id)
    if meta["status"] in ("PENDING", "STARTED", "RETRY"):
        return None
    assert meta["status"] == "SUCCESS", meta
    return meta["result"]


def reports(store: "redis.Redis", name: str) -> list[int]:
    """The indexes of the images that were reported under this task name."""
    return [int(index) for index in store.lrange(name, 0, -1)]


def main() -> None:
    url = os.environ[URL_VARIABLE]
    app = create_app(url)
    store = redis.Redis.from_url(url)

    @app.task(name=FAN_OUT, shared=False)
    def publish(messages: list[dict[str, Any]], end: str) -> None:
        """The chord by names alone, as the backend publishes it."""
        header = [
            app.signature(GENERATE_IMAGE, args=(wire,), queue=gpu_queue(wire["model"]), ignore_result=False)
            for wire in messages
        ]
        chord(header, app=app)(app.signature(SAVE_IMAGES, ignore_result=False, task_id=end))

    @app.task(name=SAVE_IMAGES, ignore_result=False, shared=False)
    def save_images(results: list[Any]) -> list[Any]:
        store.rpush(SAVES, 1)
        return results

    @app.task(name=IMAGE_STARTED, shared=False)
    def image_started(report: dict[str, Any]) -> None:
        store.rpush(IMAGE_STARTED, report["index"])

    @app.task(name=IMAGE_ENDED, shared=False)
    def image_ended(report: dict[str, Any]) -> None:
        store.rpush(IMAGE_ENDED, report["index"])

    queues = f"{DEFAULT_QUEUE},{MEDIA_QUEUE}"
    app.worker_main(["worker", "--pool=solo", f"--queues={queues}", "--loglevel=ERROR", "--without-mingle"])


if __name__ == "__main__":
    main()

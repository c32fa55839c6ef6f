"""What the node tells the backend through the queue: an image has begun, an image has ended."""

from celery import Celery
from kombu.exceptions import OperationalError

from contract.messages import GeneratedImage, ImageFailure, ImageStarted, Message
from contract.queues import IMAGE_ENDED, IMAGE_STARTED
from gpu_worker.fail_open import FailOpen


class Reports:
    """News for clients that watch; a job is complete without them, so a broker that is away is no failure."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._fail_open = FailOpen("The broker", (OperationalError, OSError))

    def started(self, started: ImageStarted) -> None:
        self._send(IMAGE_STARTED, started)

    def ended(self, result: GeneratedImage | ImageFailure) -> None:
        self._send(IMAGE_ENDED, result)

    def _send(self, task: str, message: Message) -> None:
        # add_to_parent: the running task's result would grow by each report
        arguments = (message.to_wire(),)
        self._fail_open(
            lambda: self._app.send_task(task, arguments, ignore_result=True, add_to_parent=False), None
        )

"""The node's one task, thin."""

from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

from contract.queues import GENERATE_IMAGE
from gpu_worker.batcher import Draining
from gpu_worker.generation import Generation


def register_tasks(app: Celery, generation: Generation) -> None:
    """Gives the app its task `generate_image`: a GenerateImage in, an image and reports of it out."""

    # shared=False: another app in this process must not get it
    @app.task(name=GENERATE_IMAGE, bind=True, acks_late=True, ignore_result=True, shared=False, typing=False)
    def generate_image(_self: Task[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Has reported how it ended when it returns, whatever happened: only then the message is taken."""
        raw = args[0] if len(args) == 1 and not kwargs else None
        try:
            generation.make(raw)
        except Draining:
            raise Reject("the node is leaving", requeue=True) from None

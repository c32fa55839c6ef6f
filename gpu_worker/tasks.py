"""The node's one task, thin."""

import logging
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

from contract.messages import FailureCode
from contract.queues import GENERATE_IMAGE
from gpu_worker.batcher import Draining
from gpu_worker.generation import Generation, result_for_unreadable

logger = logging.getLogger(__name__)


def register_tasks(app: Celery, generation: Generation, node: str) -> None:
    """Gives the app its task `generate_image`: GenerateImage in, GeneratedImage or ImageFailure out."""

    # shared=False: another app in this process must not get it
    @app.task(name=GENERATE_IMAGE, bind=True, acks_late=True, ignore_result=False, shared=False, typing=False)
    def generate_image(_self: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Returns a record even of a failure: a header task that raises would kill its chord."""
        raw = args[0] if len(args) == 1 and not kwargs else None
        try:
            return generation.make(raw).to_wire()
        except Draining:
            raise Reject("the node is leaving", requeue=True) from None
        except Exception:
            logger.exception("A defect of the node")
            text = "The node failed in a way that it doesn't know."
            return result_for_unreadable(raw, node, FailureCode.INTERNAL, text).to_wire()

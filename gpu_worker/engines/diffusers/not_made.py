"""The exception that ends the work on a batch."""

from gpu_worker.engines.base import Failure


class NotMade(Exception):
    """Why nothing of a batch can be made; `failure` is for the client."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)

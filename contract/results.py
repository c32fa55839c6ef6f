"""The Redis result backend that both apps use: Celery's own, with some of its costs taken out.

Seen with Celery 5.7.0 and cured here:
- every `replace(chord)` left N subscriptions and about 54 KiB in the mapper's process for ever;
- a submit with the result store refused took 19 s;
- the accounting of a chord's parts was not retried, so that an outage of a second lost the callback;
- every stored result used SETEX, which redis-py 8 calls deprecated in a warning.
"""

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from celery.result import task_join_will_block  # type: ignore[attr-defined]  # the stubs don't know it


class ResultBackend(RedisBackend):
    """Stores results and counts chord parts; nobody waits on it through subscriptions in a worker."""

    expires: int | None  # seconds; set by Celery's own class, unknown to its stubs

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribes to nothing: results are read by whoever asks, when he asks."""

    def add_pending_result(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        """Inside a task nobody may wait for a result, so none is waited for."""
        if task_join_will_block():
            return result
        return super().add_pending_result(result, *args, **kwargs)

    def _set(self, key: str, value: str, expires: int | None = None) -> None:
        """Stores a value and tells those who wait for it."""
        with self.client.pipeline() as pipe:
            pipe.set(key, value, ex=(self.expires if expires is None else expires) or None)
            pipe.publish(key, value)
            pipe.execute()

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **kwargs: Any
    ) -> None:
        """Counts one finished part, again and again until the store has taken it."""
        count = super().on_chord_part_return
        self._ensure_retryable(count, request, state, result, propagate, **kwargs)  # type: ignore[attr-defined]


class SentinelResultBackend(ResultBackend, SentinelBackend):
    """The same, in the Redis that Sentinel names."""

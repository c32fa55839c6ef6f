"""One total deadline for a blocking call that has none of its own.

boto3's timeouts are per read: a server that drips holds a call for ever. Its sockets can't be reached from
outside, so each call runs in a thread that is left to itself when it is late. Such a thread is a daemon: it
keeps no process from ending.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Work(Generic[T]):
    """A call, and what came of it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as exc:  # noqa: BLE001 - goes on in `result`, in the caller's thread
            self._error = exc

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result


def run_within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns or raises; `TimeoutError` after `seconds`."""
    work = _Work(call)
    thread = threading.Thread(target=work.run, name="storage call", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return work.result()

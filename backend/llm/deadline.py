"""Runs network calls under one total deadline and really abandons what is late.

A timeout per read never fires on a server that drips. A cancelled coroutine closes its sockets at once
and leaves no thread behind, so each call gets an event loop of its own, for as long as it takes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from backend.errors import LLMTimeout

T = TypeVar("T")


class _Loop(asyncio.SelectorEventLoop):
    """Doesn't wait, on closing, for a name look-up that hangs in a thread and can't be cancelled."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing: `close` tells the executor to end without waiting for it."""


def run_within(seconds: float, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What `work` returns or raises; `LLMTimeout` after `seconds`. Not for threads that run an event loop."""

    async def timed() -> T:
        async with asyncio.timeout(seconds):
            return await work()

    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(timed())
    except TimeoutError as exc:
        raise LLMTimeout from exc

"""The Celery consumer that both apps use: Celery's own, but a lost broker doesn't end the worker.

Seen with Celery 5.7.0 and kombu 5.7.0 on Redis: when the broker goes away while a message is in hand,
closing the lost connection, and later acknowledging the message on it, raise `AttributeError: 'NoneType'
object has no attribute 'hostname'`. Celery calls that unrecoverable and stops the worker. It is a lost
connection like any other: the message comes again after the visibility timeout, and every task may run
twice.
"""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer as CeleryConsumer

logger = logging.getLogger(__name__)


class Consumer(CeleryConsumer):
    """Takes kombu's AttributeError on a lost connection for what it means."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Closes what is left of the connection; the worker goes on and connects anew."""
        try:
            with warnings.catch_warnings():  # "running tasks may run twice": they all may
                warnings.simplefilter("ignore", CPendingDeprecationWarning)
                super().on_connection_error_after_connected(exc)
        except AttributeError:
            logger.debug("The lost connection could not be closed", exc_info=True)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledges or rejects a message, unless its connection is gone."""
        acknowledge = partial(_unless_lost, partial(p, *args, **kwargs))
        return super().call_soon_ack(acknowledge)  # type: ignore[misc]  # the stubs don't know it


def _unless_lost(acknowledge: Callable[[], Any]) -> None:
    try:
        acknowledge()
    except AttributeError:
        logger.warning("A message could not be acknowledged: its connection is lost. It will come again.")

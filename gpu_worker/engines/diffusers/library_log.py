"""The logs and warnings of the libraries, silenced where their words are checked for or told otherwise."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LIBRARIES: Final = ("diffusers", "transformers", "peft")


@contextmanager
def hushed() -> Iterator[None]:
    """diffusers, transformers and PEFT neither log nor warn within."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""The node's log: one line per record on stderr, without secrets."""

import logging
import re
from collections.abc import Iterable, Sequence

SHORTEST_SECRET = 4  # characters: a shorter one is part of too many words

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/'\"]*@", re.IGNORECASE)
_SIGNATURE = re.compile(r"(?P<address>https?://[^\s?'\"]+)\?[^\s'\"]+", re.IGNORECASE)


class Discreet(logging.Formatter):
    """Leaves out passwords and keys that are known, credentials in URLs, and signatures of URLs."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(FORMAT)
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record), self._secrets)


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without what is nobody's business."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = _CREDENTIALS.sub(r"\g<scheme>***@", text)
    return _SIGNATURE.sub(r"\g<address>?***", text)


def set_up_log(level: str, secrets: Iterable[str]) -> None:
    """Configures the root logger of this process."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These tell each request with its URL, or each task with its arguments
    for talkative in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "openai",
        "celery.app.trace",
        "celery.worker.strategy",
        "PIL",
    ):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # A message handed back is no news; nor is a result that is stored at the second try
    for alarmist in ("celery.app.trace", "celery.backends.base"):
        logging.getLogger(alarmist).setLevel(logging.ERROR)
    for wordy in ("kombu", "amqp", "asyncio"):
        logging.getLogger(wordy).setLevel(max(logging.INFO, root.level))

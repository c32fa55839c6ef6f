"""The log gives nothing away."""

import logging

import pytest

from gpu_worker.log import Discreet, scrub
from gpu_worker.settings import Settings


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("at redis://:pw@host:6379/0 now", "at redis://***@host:6379/0 now"),
        ("amqp://user:p@ss#w@host//;amqp://u:x@other", "amqp://***@host//;amqp://***@other"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("PUT https://s3/b/k.png?X-Amz-Signature=abc&x=1 failed", "PUT https://s3/b/k.png?*** failed"),
        ("'http://h/u?signature=1'", "'http://h/u?***'"),
        ("plain words, one@two", "plain words, one@two"),
    ],
)
def test_credentials_and_signatures_are_left_out(text: str, seen: str) -> None:
    assert scrub(text) == seen


def test_known_secrets_are_left_out_even_of_tracebacks() -> None:
    settings = Settings(
        broker_url="redis://:br0ker%20pw@h:1/0",
        result_url="redis://:res_ult@h:1/0",
        images_api_key="sk-123456",
    )
    try:
        raise ValueError("said: br0ker pw, res_ult, sk-123456")  # noqa: TRY301
    except ValueError as exc:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed", None, (type(exc), exc, None))

    text = Discreet(settings.secrets()).format(record)

    assert "said: ***, ***, ***" in text


def test_an_empty_secret_hides_nothing() -> None:
    assert scrub("abc", ["", "b"]) == "abc"

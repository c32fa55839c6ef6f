"""`Retry-After`: what servers say, well or badly."""

import time
from email.utils import formatdate

import pytest

from backend.retry_after import seconds_of


@pytest.mark.parametrize(("said", "seconds"), [("7", 7), (" 120 ", 120), ("0", 0), ("1.5", 1.5)])
def test_seconds(said: str, seconds: float) -> None:
    assert seconds_of(said) == seconds


def test_a_date() -> None:
    in_an_hour = seconds_of(formatdate(time.time() + 3600, usegmt=True))
    assert in_an_hour is not None
    assert 3590 < in_an_hour <= 3600
    assert seconds_of("Fri, 01 Jan 1999 00:00:00 GMT") == 0
    assert seconds_of("Mon, 01 Jan 0001 00:00:00 -0000") == 0


@pytest.mark.parametrize("said", ["", "soon", "-5", "nan", "inf", "Fri, 99 Jan 2026 00:00:00 GMT"])
def test_nothing_sensible(said: str) -> None:
    assert seconds_of(said) is None

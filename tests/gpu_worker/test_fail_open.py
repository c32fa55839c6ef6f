"""Going on without a service that is away."""

import logging

import pytest

from gpu_worker.fail_open import FailOpen


class Service:
    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    def answer(self) -> int:
        self.asked += 1
        if not self.up:
            raise ConnectionError("away")
        return 42


def test_answers_with_the_default_while_the_service_is_away_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    service, ask = Service(), FailOpen("The store", (ConnectionError,), pause_s=0)
    assert ask(service.answer, 0) == 42

    service.up = False
    assert [ask(service.answer, 0) for _ in range(3)] == [0, 0, 0]
    service.up = True
    assert ask(service.answer, 0) == 42

    assert [record.getMessage() for record in caplog.records] == [
        "The store is away (away): going on without it",
        "The store is back",
    ]


def test_leaves_the_service_alone_for_a_while() -> None:
    service, ask = Service(), FailOpen("The store", (ConnectionError,), pause_s=60)
    service.up = False

    for _ in range(5):
        ask(service.answer, 0)

    assert service.asked == 1


def test_lets_through_what_is_not_the_service_s_fault() -> None:
    def defect() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        FailOpen("The store", (ConnectionError,))(defect, 0)

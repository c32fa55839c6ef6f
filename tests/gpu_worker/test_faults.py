"""The simulator's faults: a strict line of text, and dice that fall the same again."""

from collections import Counter

import pytest
from pydantic import ValidationError

from gpu_worker.faults import FAULTS, Faults
from gpu_worker.settings import Settings


def test_a_line_of_text_there_and_back() -> None:
    text = "slow=0.1,out_of_memory=0.05,jitter=0.5,poison=hemlock,words=on,seed=7"

    faults = Faults.parse(text)

    assert (faults.slow, faults.poison, faults.words, faults.seed) == (0.1, "hemlock", True, 7)
    assert str(faults) == text
    assert not Faults.parse(" ")
    assert not Faults.parse("seed=3")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tired=0.1", "'tired' is no fault; there are: slow,"),
        ("slow", "slow is a share from 0 to 1, not ''"),
        ("slow=2", "slow is a share from 0 to 1"),
        ("slow=nan", "slow is a share from 0 to 1"),
        ("slow=0.1,slow=0.2", "slow is there twice"),
        ("slow=0.6,crash=0.6", "come to more than 1"),
        ("poison=", "poison needs a word"),
        ("words=yes", "words is on or off, not 'yes'"),
        ("seed=-1", "seed is a whole number"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match="sketch_faults") as refused:
        Settings(broker_url="redis://x", sketch_faults=text)

    assert why in str(refused.value)


def test_as_many_as_the_shares_say() -> None:
    faults = Faults.parse("slow=0.2,crash=0.1,bad_upload=0.05")

    met = Counter(faults.met("a lighthouse", seed, "1:1:1") for seed in range(4000))

    assert set(met) == {None, "slow", "crash", "bad_upload"}
    assert met["slow"] == pytest.approx(800, abs=120)
    assert met["crash"] == pytest.approx(400, abs=90)
    assert met["bad_upload"] == pytest.approx(200, abs=70)


def test_the_same_attempt_meets_the_same_fault_and_the_next_may_not() -> None:
    faults = Faults.parse("crash=0.5,seed=1")
    attempts = [f"1:{number}:1" for number in range(40)]

    met = [faults.met("a lighthouse", 1, attempt) for attempt in attempts]

    assert met == [Faults.parse("crash=0.5,seed=1").met("a lighthouse", 1, one) for one in attempts]
    assert met != [Faults.parse("crash=0.5,seed=2").met("a lighthouse", 1, one) for one in attempts]
    assert set(met) == {None, "crash"}


def test_slowness_and_jitter() -> None:
    faults = Faults.parse("slow=0.5,jitter=0.5")

    factors = [faults.slowness("a lighthouse", seed, "") for seed in range(200)]

    assert all(1 <= factor < 1.5 or 10 <= factor < 15 for factor in factors)
    assert len(set(factors)) == 200


def test_poison_kills_each_time() -> None:
    faults = Faults.parse("poison=hemlock")

    assert {faults.met("Hemlock and ivy", seed, str(seed)) for seed in range(20)} == {"crash"}
    assert faults.met("ivy", 1, "") is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_prompt_may_ask_for_a_fault_where_that_is_on(fault: str) -> None:
    said = f"a lighthouse [fault:{fault.replace('_', ' ')}], in a storm"  # as a language model gives it back

    assert Faults.parse("words=on").met(said, 1, "") == fault
    assert Faults.parse("slow=0").met(said, 1, "") is None


def test_a_prompt_may_ask_for_a_fault_in_a_share_of_its_images() -> None:
    met = [Faults.parse("words=on").met("a cat fault:crash:25", seed, "") for seed in range(400)]

    assert met.count("crash") == pytest.approx(100, abs=30)

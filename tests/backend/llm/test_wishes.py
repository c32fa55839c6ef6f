"""What messages ask for, in many languages, and what only looks like it."""

import pytest

from backend.llm.wishes import Wishes, wishes_in


@pytest.mark.parametrize(
    ("message", "part", "names"),
    [
        ("a walk from dawn to dusk", "times", {"dawn", "dusk"}),
        ("夕焼けの海", "times", {"golden"}),
        ("Вечер на реке", "times", {"dusk"}),
        ("שוק בלילה", "times", {"night"}),
        ("समुद्र पर सुबह", "times", {"dawn"}),
        ("เมืองยามเช้า", "times", {"dawn"}),
        ("knight and nightingale", "times", set()),
        ("गुजरात का नक्शा", "times", set()),
        ("صديق قليل الكلام", "times", set()),
        ("un jardin sous la pluie", "weathers", {"rain"}),
        ("눈 내리는 마을", "weathers", {"snow"}),
        ("나비가 나는 들판", "weathers", set()),
        ("Herbstwald im Nebel", "weathers", {"fog"}),
        ("Herbstwald im Nebel", "seasons", {"autumn"}),
        ("fall colors in Vermont", "seasons", {"autumn"}),
        ("leaves fall from a tree", "seasons", set()),
        ("hot spring in the hills", "seasons", set()),
        ("real estate brochure", "seasons", set()),
        ("秋の京都", "seasons", {"autumn"}),
        ("акварель: старый дом", "media", {"watercolor"}),
        ("ink drawing of a crab", "media", {"ink"}),
        ("macro of a bee", "views", {"close"}),
        ("航拍海岸", "views", {"above"}),
    ],
)
def test_reads(message: str, part: str, names: set[str]) -> None:
    assert getattr(wishes_in(message), part) == names


def test_colours_come_in_the_order_of_mention_and_three_at_the_most() -> None:
    assert wishes_in("gold, teal, red and blue").colours == ("gold", "teal", "red")
    assert wishes_in("ein roter Drache").colours == ("red",)
    assert wishes_in("a black and white cat") == Wishes(monochrome=True)


def test_what_is_denied_is_not_wished() -> None:
    wishes = wishes_in("a beach without snow, not at night, no rain but fog")
    assert (wishes.times, wishes.weathers) == (frozenset(), frozenset({"fog"}))
    assert wishes.denied == {"snow", "night", "rain"}


def test_long_messages_are_read_at_both_ends_only() -> None:
    middle = "The company was founded and grew. " * 40 + "It was winter. " + "They moved on. " * 40
    assert wishes_in(f"A port at night. {middle} Style: watercolor.") == Wishes(
        times=frozenset({"night"}), media=frozenset({"watercolor"})
    )

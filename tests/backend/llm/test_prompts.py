"""Tidy, bounded, different."""

import pytest

from backend.llm.base import MAX_PROMPT_CHARACTERS
from backend.llm.prompts import as_prompt, cut, fingerprint, take_new


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("  a\n\tcat  ", "a cat"),
        ("1. a cat", "a cat"),
        ("- a cat", "a cat"),
        ("Prompt 3: a cat", "a cat"),
        ("3 cats", "3 cats"),
        ("1.5 m of snow", "1.5 m of snow"),
        ('"a cat"', "a cat"),
        ('"a" and "b"', '"a" and "b"'),
        ("a\x00\x07\x1b\x9fcat", "a cat"),
        ("a \u202ecat\u202c\ufeff", "a cat"),
        ("\ud800a cat\udfff", "a cat"),
        ("…", ""),
        (" \u200b\n", ""),
        ("", ""),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_as_prompt(text: str, prompt: str) -> None:
    assert as_prompt(text) == prompt


def test_cuts_between_words() -> None:
    assert cut("one two three", 9) == "one two"
    assert cut("one two three", 7) == "one two"
    assert cut("one, two", 5) == "one"
    assert cut("a fox and (in the far distance) a hill", 24) == "a fox and"
    assert len(as_prompt("word " * 1000)) <= MAX_PROMPT_CHARACTERS
    assert len(as_prompt("字" * 5000)) == MAX_PROMPT_CHARACTERS
    assert as_prompt("a" + "\u0301" * 5000)


def test_fingerprints_see_through_case_width_and_spacing() -> None:
    assert fingerprint("A  Cat.") == fingerprint("a cat") == fingerprint("Ａ ｃａｔ")
    assert fingerprint("a cat") != fingerprint("a bat")


def test_takes_what_is_new_up_to_the_limit() -> None:
    assert take_new(["a cat", "A CAT ", "", "a dog", "a hen", "an ox"], ["a dog"], 2) == ["a cat", "a hen"]

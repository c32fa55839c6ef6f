"""What a message is about, in its own words."""

import unicodedata

import pytest

from backend.llm.subject import DETAIL_CHARACTERS, LEAD_CHARACTERS, subject_of

ARTICLE = """# The Last Ferry to Hven

The island of Hven lies in the strait between Denmark and Sweden, a low plateau with steep clay cliffs. \
For three hundred years a ferry has crossed from the mainland harbour to the island harbour, carrying \
farmers and cattle.

Dr. Smith says that the ferry carried 3.5 million passengers last year. On the quay, children wait for the \
ferry with fishing rods. The island harbour smells of tar. See https://example.com/hven for more.
"""


@pytest.mark.parametrize(
    ("message", "lead"),
    [
        ("a red boat", "a red boat"),
        ("  a   red\tboat. ", "a red boat"),
        ("Please make 4 pictures of a fox", "a fox"),
        ("Could you draw me a watercolor painting of two herons?", "two herons"),
        ("I need a thumbnail for my talk on bees", "my talk on bees"),
        ("Make it so", "Make it so"),
        ("draw", "draw"),
        (
            "How we moved **our** database: https://ex.com/a?b — and what broke",
            "How we moved our database — and what broke",
        ),
        ("Summer party\nSaturday at six", "Summer party, Saturday at six"),
        ("We open on Monday! Cats welcome.", "We open on Monday! Cats welcome"),
        ("# Title", "Title"),
        ("#autumn vibes", "autumn vibes"),
        ("mail me@example.com about the fox", "mail about the fox"),
        ("https://www.example.com/my-walk", "example com my walk"),
        ("C++ & C#", "C++ & C#"),
        ("🦊🌙", "🦊🌙 (fox face, crescent moon)"),
        ("!!!", "an abstract composition on the sign “!!!”"),
        ("今日は雨。", "今日は雨"),
        ("क्या बात है।", "क्या बात है"),
    ],
)
def test_short_messages_stay_whole(message: str, lead: str) -> None:
    subject = subject_of(message)
    assert (subject.lead, subject.details) == (lead, ())


def test_a_long_message_is_its_heading_and_telling_phrases_in_order() -> None:
    subject = subject_of(ARTICLE)

    assert subject.lead == "The Last Ferry to Hven"
    assert "On the quay, children wait for the ferry with fishing rods" in subject.details
    assert (
        "For three hundred years a ferry has crossed from the mainland harbour to the island harbour"
        in subject.details
    )
    places = [ARTICLE.index(detail) for detail in subject.details]
    assert places == sorted(places)
    assert not any("http" in detail for detail in subject.details)
    assert all(len(detail) <= DETAIL_CHARACTERS for detail in subject.details)


def test_without_a_heading_the_first_sentence_leads() -> None:
    text = ARTICLE.split("\n\n", 1)[1]
    assert subject_of(text).lead == text.split(".")[0]


@pytest.mark.parametrize(
    "message",
    [
        "slowly " * 100 + "home",
        "the harbour wakes, and the boats, and then the gulls, " * 20,
        "Ночной город спит и видит сны о море " * 30,
        "مدينة قديمة على البحر في الصباح الباكر " * 30,
        "एक पुराना शहर समुद्र के किनारे " * 30,
    ],
)
def test_words_are_never_broken(message: str) -> None:
    lead = subject_of(message).lead
    assert len(lead) <= LEAD_CHARACTERS
    assert set(lead.split()) <= {word.rstrip(",") for word in message.split()} | set(message.split())


def test_scripts_without_spaces_are_cut_at_their_own_marks() -> None:
    chinese = (
        "赫文岛位于丹麦和瑞典之间的海峡，是一片低矮的绿色高原，四周是陡峭的粘土悬崖。三百年来，一艘渡轮往返于两岸。"
        * 3
    )
    assert (
        subject_of(chinese).lead
        == "赫文岛位于丹麦和瑞典之间的海峡，是一片低矮的绿色高原，四周是陡峭的粘土悬崖"
    )


@pytest.mark.parametrize("cluster", ["👩‍👩‍👧", "🇸🇪", "👍🏽", "e\u0301\u0323", "กี่", "क्षि"])
def test_characters_are_never_broken(cluster: str) -> None:
    lead = subject_of("x" + cluster * 300).lead.split(" (")[0]
    assert lead.startswith("x")
    composed = unicodedata.normalize("NFC", cluster)
    assert lead.removeprefix("x").replace(composed, "") == ""

"""The offline language model: prompts that an artist could use, from any message."""

import re
import unicodedata
from itertools import pairwise

import pytest

from backend.llm import vocabulary
from backend.llm.base import MAX_PROMPT_CHARACTERS, PromptRequest
from backend.llm.prompts import fingerprint
from backend.llm.template import TemplateLLM

MESSAGES = {
    "Latin": "autumn sale for a small bookshop",
    "Cyrillic": "Осенний рынок в старом городе",
    "Arabic": "سوق الزهور في الصباح",
    "Hebrew": "שוק ישן בירושלים בלילה",
    "Devanagari": "एक छोटा गाँव बारिश में",
    "Thai": "ตลาดน้ำยามเช้า",
    "Chinese": "雨夜的东京小巷",
    "Japanese": "夜の港とランタン",
    "Korean": "한밤의 서점",
    "Georgian": "ძველი ქალაქი",
    "Amharic": "የቡና ሥነ ሥርዓት",
    "emoji": "🦊🌙",
    "an emoji family": "👩‍👩‍👧",
    "flags": "🇸🇪🇩🇰",
    "one letter": "x",
    "one digit": "7",
    "punctuation": "!?…",
    "a backslash": "\\",
    "whitespace runs": " \t\n\u3000 a   red \r\n\r\n   boat \u00a0 ",
    "control characters": "a\x00 cat\x1b[31m \u202eon a roof\u202c\ud800",
    "an address": "https://www.example.com/blog/my-walk",
    "markdown": "# A **bold** [title](https://example.com)\n\n- one\n- two",
    "braces": "{count} {} %s {0.__class__}",
    "64 KiB of words": ("the old harbour wakes before the gulls do. " * 1600)[:65536],
    "64 KiB without a break": "a" * 65536,
    "64 KiB of Chinese": "字" * 21845,
    "64 KiB of full stops": "." * 65536,
    "64 KiB of emoji": "👩‍👩‍👧" * 3000,
    "64 KiB of brackets": "[(" * 32768,
    "64 KiB of at signs": "a@" * 32768,
    "64 KiB of marks": "a" + "\u0301" * 30000,
}


def write(
    message: str, count: int = 4, seed: int | None = None, width: int | None = None, height: int | None = None
) -> list[str]:
    return TemplateLLM().write_prompts(PromptRequest(message, count, seed, width, height))


def said_of(
    prompts: list[str], cards: tuple[vocabulary.Light | vocabulary.Medium | vocabulary.Palette, ...]
) -> list[str]:
    """Which of the cards each prompt was dealt."""
    return [
        max((card.text for card in cards if card.text in prompt.lower()), key=len, default="")
        for prompt in prompts
    ]


# -- any message, any number ---------------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("count", [1, 2, 100])
def test_writes_exactly_as_many_usable_prompts_as_asked_for(message: str, count: int) -> None:
    prompts = write(message, count)

    assert len(prompts) == len({fingerprint(prompt) for prompt in prompts}) == count
    for prompt in prompts:
        assert 40 < len(prompt) <= MAX_PROMPT_CHARACTERS
        assert prompt == " ".join(prompt.split())
        assert not {unicodedata.category(character) for character in prompt} & {"Cc", "Cs", "Zl", "Zp"}
        assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068") & set(prompt)
        assert "“”" not in prompt
        prompt.encode()


def test_writes_every_number() -> None:
    longest = write("a red boat", 100)
    for count in range(1, 101):
        assert write("a red boat", count) == longest[:count]


@pytest.mark.parametrize(
    "name", ["Latin", "Cyrillic", "Arabic", "Hebrew", "Devanagari", "Thai", "Chinese", "Korean"]
)
def test_keeps_the_users_own_words(name: str) -> None:
    assert all(MESSAGES[name] in prompt for prompt in write(MESSAGES[name], 20))


# -- repeatable ----------------------------------------------------------------------------------------


def test_the_same_message_and_seed_bring_the_same_prompts() -> None:
    assert write("a harbour", 10, seed=7) == write("a harbour", 10, seed=7)
    assert write("a harbour", 10) == write("a harbour", 10)


def test_another_seed_or_message_brings_others() -> None:
    first = write("a harbour", 4, seed=1)
    assert not set(first) & set(write("a harbour", 4, seed=2))
    assert not set(first) & set(write("a harbour", 4))
    assert [said[9:] for said in first] != [said[8:] for said in write("a garden", 4, seed=1)]


# -- really different ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_neighbours_differ_in_light_palette_and_medium(seed: int) -> None:
    prompts = write("a bookshop", 24, seed)
    for cards in (vocabulary.LIGHTS, vocabulary.PALETTES, vocabulary.MEDIA):
        said = said_of(prompts, cards)
        assert all(said)
        assert all(one != next_one for one, next_one in pairwise(said))
        assert len(set(said[:12])) >= 11, "a deck is dealt through before it is shuffled anew"


@pytest.mark.parametrize("seed", range(20))
def test_palettes_go_with_the_light(seed: int) -> None:
    prompts = write("a bookshop", 40, seed)
    times = {card.text: card.times for card in (*vocabulary.LIGHTS, *vocabulary.PALETTES)}
    pairs = zip(said_of(prompts, vocabulary.LIGHTS), said_of(prompts, vocabulary.PALETTES), strict=True)
    assert all(times[light] & times[palette] for light, palette in pairs)


@pytest.mark.parametrize(
    "message",
    ["black and white oil painting, close-up, at dawn, snow", "pastel pixel art in spring, aerial, at night"],
)
def test_a_hundred_prompts_even_where_much_is_laid_down(message: str) -> None:
    assert len(set(write(message, 100))) == 100


# -- what the message lays down --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "time"),
    [
        ("a harbour at night", "night"),
        ("雨夜的东京小巷", "night"),
        ("Ночь в лесу", "night"),
        ("شارع في الليل", "night"),
        ("eine Burg im Morgengrauen", "dawn"),
        ("a picnic at noon", "day"),
        ("coucher de soleil sur la mer", "golden"),
        ("a street at dusk", "dusk"),
    ],
)
def test_honours_the_time_of_day(message: str, time: str) -> None:
    times = {card.text: card.times for card in vocabulary.LIGHTS}
    assert all(time in times[light] for light in said_of(write(message, 30), vocabulary.LIGHTS))


def test_honours_what_is_not_wanted() -> None:
    times = {card.text: card.times for card in vocabulary.LIGHTS}
    said = said_of(write("a beach, not at night", 40), vocabulary.LIGHTS)
    assert all("night" not in times[light] or len(times[light]) > 1 for light in said)


@pytest.mark.parametrize(
    ("message", "family"),
    [
        ("a fox, watercolor", "watercolor"),
        ("水彩の猫", "watercolor"),
        ("an oil painting of a ship", "oil"),
        ("a pixel art castle", "pixel"),
        ("a photo of a dog", "photo"),
        ("linocut of a heron", "print"),
    ],
)
def test_honours_the_medium(message: str, family: str) -> None:
    families = {card.text: card.family for card in vocabulary.MEDIA}
    assert {families[medium] for medium in said_of(write(message, 12), vocabulary.MEDIA)} == {family}


def test_honours_season_weather_view_and_colours() -> None:
    seasons = {card.text: card.seasons for card in vocabulary.PALETTES}
    autumn = said_of(write("a forest in autumn", 12), vocabulary.PALETTES)
    assert all("autumn" in seasons[palette] for palette in autumn)
    weathers = {card.text: card.weathers for card in vocabulary.LIGHTS}
    storm = said_of(write("a lighthouse in a storm", 12), vocabulary.LIGHTS)
    assert all("storm" in weathers[light] for light in storm)
    assert all("close-up" in prompt.lower() for prompt in write("a bee, close-up", 6))
    assert all("palette of teal, gold and" in prompt for prompt in write("a teal and gold hotel", 12))
    assert all(
        "black and white" in prompt or "monochrome" in prompt for prompt in write("a monochrome street", 8)
    )
    assert not any("color" in prompt for prompt in write("black and white street", 40))


def test_weather_is_left_out_where_none_is_named() -> None:
    assert not any(re.search(r"\b(?:rain|storm|snow)", prompt) for prompt in write("a bookshop", 60))


def test_composes_for_the_format() -> None:
    assert not any("panoramic" in prompt.lower() for prompt in write("a hill", 60, width=512, height=1024))
    assert any("panoramic" in prompt.lower() for prompt in write("a hill", 60, width=1024, height=512))
    assert not any(
        "tall composition" in prompt.lower() for prompt in write("a hill", 60, width=1024, height=512)
    )


def test_names_no_things_of_its_own() -> None:
    """What is shown is for the message to say: such words would take over the picture."""
    things = re.compile(
        r"\b(?:window|book|tree|figure|person|people|street|house|city|sea|field|background|studio|space)s?\b"
    )
    assert not any(things.search(prompt) for seed in range(5) for prompt in write("x", 100, seed))


def test_check_is_always_content() -> None:
    TemplateLLM().check()

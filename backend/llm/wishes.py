"""What a message itself asks for: time, weather, season, medium, view, colours. Pure.

A word list, not a language model: it is there so that "a harbour at night" isn't lit by the noon sun.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from backend.llm import wish_words
from backend.llm.wish_words import Words

HEAD_CHARACTERS = 250  # read at the beginning: what a message is about
TAIL_CHARACTERS = 150  # read at the end: where people say how it is to look
MAX_COLOURS = 3

_DENIED = re.compile(
    r"\b(?:no|not|without|never|isn['’]t|instead of)\s+(?:(?:an?|the|at|in|any)\s+)*$", re.IGNORECASE
)


def _pattern(words: Words) -> re.Pattern[str]:
    unspaced = f"|{words.unspaced}" if words.unspaced else ""
    return re.compile(rf"(?<!\w)(?:{words.spaced})(?!\w){unspaced}", re.IGNORECASE)


def _patterns(table: Mapping[str, Words]) -> dict[str, re.Pattern[str]]:
    return {name: _pattern(words) for name, words in table.items()}


_TIMES = _patterns(wish_words.TIMES)
_WEATHERS = _patterns(wish_words.WEATHERS)
_SEASONS = _patterns(wish_words.SEASONS)
_MEDIA = _patterns(wish_words.MEDIA)
_VIEWS = _patterns(wish_words.VIEWS)
_COLOURS = _patterns(wish_words.COLOURS)
_MONOCHROME = _pattern(wish_words.MONOCHROME)
_PASTEL = _pattern(wish_words.PASTEL)


@dataclass(frozen=True)
class Wishes:
    """What was asked for; empty where nothing was said of it."""

    times: frozenset[str] = frozenset()
    weathers: frozenset[str] = frozenset()
    seasons: frozenset[str] = frozenset()
    media: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    colours: tuple[str, ...] = ()
    monochrome: bool = False
    pastel: bool = False
    denied: frozenset[str] = frozenset()  # times and weathers that it is not to be

    def allow(self, other: "Wishes") -> bool:
        """Whether a picture can be as `other` says without breaking these."""
        mine = (self.times, self.weathers, self.seasons, self.media)
        theirs = (other.times, other.weathers, other.seasons, other.media)
        return all(their <= own for own, their in zip(mine, theirs, strict=True))


def wishes_in(message: str) -> Wishes:
    """What `message` asks for, as far as its words are known."""
    text = unicodedata.normalize("NFC", _telling_part(message))
    monochrome = bool(_MONOCHROME.search(text))
    short = len(text.encode("utf-8", "replace")) <= HEAD_CHARACTERS  # in an article colours are things
    return Wishes(
        times=frozenset(_named(_TIMES, text)),
        denied=frozenset(_denied(_TIMES, text) | _denied(_WEATHERS, text)),
        weathers=frozenset(_named(_WEATHERS, text)),
        seasons=frozenset(_named(_SEASONS, text)),
        media=frozenset(_named(_MEDIA, text)),
        views=frozenset(_named(_VIEWS, text)),
        colours=tuple(_named(_COLOURS, text)[:MAX_COLOURS]) if short and not monochrome else (),
        monochrome=monochrome,
        pastel=bool(_PASTEL.search(text)),
    )


def _telling_part(message: str) -> str:
    if len(message) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return message
    return f"{message[:HEAD_CHARACTERS]}\n{message[-TAIL_CHARACTERS:]}"


def _named(patterns: Mapping[str, re.Pattern[str]], text: str) -> list[str]:
    """The names whose words are in `text` and not denied there, in the order of their first mention."""
    found: dict[str, int] = {}
    for name, pattern in patterns.items():
        for match in pattern.finditer(text):
            if not _is_denied(match, text):
                found[name] = match.start()
                break
    return sorted(found, key=lambda name: found[name])


def _denied(patterns: Mapping[str, re.Pattern[str]], text: str) -> set[str]:
    """The names that are only mentioned as not wanted."""
    mentioned = {name for name, pattern in patterns.items() if pattern.search(text)}
    return mentioned.difference(_named(patterns, text))


def _is_denied(match: re.Match[str], text: str) -> bool:
    return _DENIED.search(text, max(0, match.start() - 40), match.start()) is not None

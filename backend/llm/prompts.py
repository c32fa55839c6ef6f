"""What makes a text a prompt: tidy, bounded, and different from the others. Pure."""

import re
import unicodedata
from collections.abc import Iterable

from backend.llm.base import MAX_PROMPT_CHARACTERS

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_NONCHARACTERS = re.compile(r"[\ufdd0-\ufdef\ufffe\uffff]")
_NUMBERING = re.compile(r"^\s*(?:prompt\s*)?(?:\d{1,3}\s*[.):]|[-*•])\s+", re.IGNORECASE)
_WRAPPING_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "„": "“", "「": "」", "`": "`"}
_LOOSE_END = " \t,;:–—-–/|&(["


def tidy(text: str) -> str:
    """One line of NFC text without control characters, direction overrides or broken surrogates."""
    spaced = "".join(map(_visible, unicodedata.normalize("NFC", text)))
    return " ".join(_NONCHARACTERS.sub("", spaced).split())


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    if category == "Cs":
        return ""
    if category == "Cf":  # the two joiners spell words and emoji; the rest is invisible or turns text around
        return character if character in (_ZWNJ, _ZWJ) or "\U000e0020" <= character <= "\U000e007f" else ""
    return character


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, cut between words, or else between visible characters."""
    if len(text) <= limit:
        return text
    end = _whole_character_before(text, limit)
    space = text.rfind(" ", 0, limit + 1)
    if space >= limit // 2:
        end = space
    return _without_open_bracket(text[:end]).rstrip(_LOOSE_END)


def _whole_character_before(text: str, end: int) -> int:
    """The last index <= `end` that doesn't divide a base from its marks, or an emoji from its parts."""
    index = end
    while index > 0 and _joined(text, index):
        index -= 1
    return index or end


def _joined(text: str, index: int) -> bool:
    before, after = text[index - 1], text[index]
    if before == _ZWJ or after in (_ZWJ, _ZWNJ) or unicodedata.category(after).startswith("M"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return True
    if (
        "เ" <= before <= "ไ" or unicodedata.combining(before) == 9
    ):  # a Thai vowel or a virama binds what follows
        return True
    return _is_flag_half(before) and _is_flag_half(after) and _flag_halves_before(text, index) % 2 == 1


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_halves_before(text: str, index: int) -> int:
    start = index
    while start > 0 and _is_flag_half(text[start - 1]):
        start -= 1
    return index - start


def _without_open_bracket(text: str) -> str:
    for opening, closing in ("()", "[]", "“”", "«»", "「」", "（）"):
        start = text.rfind(opening)
        if start > len(text) // 3 and closing not in text[start:]:
            text = text[:start]
    return text


def as_prompt(text: str) -> str:
    """`text` as a prompt of at most MAX_PROMPT_CHARACTERS, or "" where nothing in it could be drawn."""
    line = _NUMBERING.sub("", tidy(text))
    if len(line) > 1 and _WRAPPING_QUOTES.get(line[0]) == line[-1] and line[0] not in line[1:-1]:
        line = line[1:-1].strip()
    return cut(line, MAX_PROMPT_CHARACTERS) if says_something(line) else ""


def says_something(text: str) -> bool:
    """Whether there is a letter, a digit or a picture sign in it, not punctuation alone."""
    return any(
        unicodedata.category(character)[0] in "LN" or unicodedata.category(character) == "So"
        for character in text
    )


def fingerprint(prompt: str) -> str:
    """Equal for prompts that differ only in case, width, spacing or closing punctuation."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(" .,;!…")


def take_new(candidates: Iterable[str], known: Iterable[str], limit: int) -> list[str]:
    """The first `limit` usable prompts among `candidates` that are neither `known` nor repeats."""
    seen = {fingerprint(prompt) for prompt in known}
    taken: list[str] = []
    for prompt in map(as_prompt, candidates):
        if len(taken) >= limit:
            break
        if prompt and fingerprint(prompt) not in seen:
            seen.add(fingerprint(prompt))
            taken.append(prompt)
    return taken

"""What a message is about, in its own words: short ones whole, long ones condensed. Pure, for any script."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from backend.llm.prompts import cut, says_something, tidy

MAX_READ_CHARACTERS = 64 * 1024
LEAD_CHARACTERS = 160
DETAIL_CHARACTERS = 100
MAX_DETAILS = 12
MAX_SIGNS = 8
_DENSE_SHARE = 2.2  # a character of Chinese, Japanese or Korean says about as much as this many others

_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<!\S)[^\s@]{1,64}@[^\s@]{1,255}\.\w+")
_ADDRESS_MARKS = re.compile(r"https?://(?:www\.)?|[/\-_.?=&%+]+")
_MARKUP = re.compile(
    r"<[^<>\n]{1,200}>|!?\[([^\]\n]{0,200})\]\([^)\n]{0,500}\)|(?<!\w)#+(?=\s|\w)|[*_~`|\\]{1,3}|^[ \t]*>+",
    re.MULTILINE,
)
_BULLET = re.compile(r"^[ \t]*(?:[-*•·‣]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[^\W\d_]{3}[.!?…])\s+|(?<=[؟։።])\s*|(?<=[。！？｡।॥၊။។])\s*|\s*\n\s*")
_CLAUSE_END = re.compile(r"[,;:—–،؛、，；：](?=\s)|[、，；：]|\s[-–—]\s")
_WORD = re.compile(r"\w{4,}")
_EMPTY_CLAUSE = re.compile(r"[:,;]( [—–-] )")  # where an address was
_UNCLOSED_LINE = re.compile(r"(?<=\w)\n")
_CLOSING = " \t.,;:!?…。！？｡।॥؟-–—"
_ASKING = re.compile(
    r"^(?:hi|hello|hey)?[,!\s]*(?:please[,\s]+)?(?:(?:can|could|would|will) you (?:please )?)?"
    r"(?:(?:create|make|generate|draw|paint|design|produce|render|give|show|send|get)(?: me| us)?"
    r"|(?:i|we)(?: would|'d|’d)? (?:need|want|like)(?: you to (?:create|make|draw|paint|design))?)\s+"
    r"(?:(?:an?|the|some|a few|several|a couple of|\d{1,3}|two|three|four|five|six|ten)\s+)?"
    r"(?:[\w-]+\s+){0,2}?(?:images?|pictures?|pics?|photos?|illustrations?|thumbnails?|drawings?|banners?|covers?"
    r"|posters?|artworks?|visuals?|paintings?)\s+(?:of|for|showing|about|with|depicting|that shows?)\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Subject:
    """What the pictures show."""

    lead: str  # in every prompt; never empty
    details: tuple[str, ...] = ()  # further phrases of a long message: one for each prompt, in turn


def subject_of(message: str) -> Subject:
    """The subject of any message that is not blank. Words are never changed, only left out."""
    text = message[:MAX_READ_CHARACTERS]
    plain = _plain(text)
    if not says_something(plain):  # an address alone: its words are better than none
        plain = tidy(_ADDRESS_MARKS.sub(" ", text))
    if not any(character.isalnum() for character in plain):
        return Subject(_signs(plain))
    plain = _without_asking(plain)
    if len(line := _one_line(plain)) <= _limit(plain, LEAD_CHARACTERS):
        return Subject(_closed(line))
    return _condensed(plain)


def _signs(text: str) -> str:
    """A subject for a message without a word: emoji called by their names, or the signs themselves."""
    pictures = [character for character in text if unicodedata.category(character) == "So"][:MAX_SIGNS]
    names = dict.fromkeys(unicodedata.name(character, "").lower() for character in pictures)
    if spoken := ", ".join(filter(None, names)):
        return f"{cut(text, 40)} ({spoken})"
    return f"an abstract composition on the sign “{text[:MAX_SIGNS]}”" if text else "an abstract composition"


def _plain(text: str) -> str:
    """Without addresses and markup; lines stay lines."""
    text = _ADDRESS.sub("", text.replace("\r", "\n"))
    text = _BULLET.sub("", _MARKUP.sub(lambda mark: f" {mark[1]} " if mark[1] else " ", text))
    lines = (_EMPTY_CLAUSE.sub(r"\1", tidy(line)) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _one_line(text: str) -> str:
    return tidy(_UNCLOSED_LINE.sub(", ", text))


def _without_asking(text: str) -> str:
    """`Please make four pictures of a fox` is about a fox."""
    rest = _ASKING.sub("", text, count=1)
    return rest if says_something(rest) else text


def _limit(text: str, characters: int) -> int:
    """`characters`, or fewer where each of them says more."""
    sample = text[:400]
    dense = sum(unicodedata.east_asian_width(character) in "WF" for character in sample)
    return int(characters / _DENSE_SHARE) if dense * 2 > len(sample) else characters


def _closed(text: str) -> str:
    return text.strip(" \t") if says_something(text[-1:]) else text.rstrip(_CLOSING) or text


def _condensed(text: str) -> Subject:
    heading, body = _heading(text)
    sentences = [heading, *_sentences(body)] if heading else _sentences(body)
    lead = _phrase(sentences[0], _limit(text, LEAD_CHARACTERS))
    limit = _limit(text, DETAIL_CHARACTERS)
    details = dict.fromkeys(_phrase(sentence, limit) for sentence in _telling(sentences))
    details.pop(lead, None)
    return Subject(lead, tuple(detail for detail in details if says_something(detail)))


def _heading(text: str) -> tuple[str, str]:
    """A first line that stands by itself, and the rest; "" where there is none."""
    first, _, rest = text.partition("\n")
    shortest, longest = _limit(first, 12), _limit(first, LEAD_CHARACTERS)
    alone = rest and shortest <= len(first) <= longest and first[-1].isalnum()
    return (first, rest) if alone else ("", text)


def _sentences(text: str) -> list[str]:
    """Sentences in order, without fragments; a short heading is joined to what it heads."""
    sentences: list[str] = []
    pending = ""
    for part in _SENTENCE_END.split(text):
        pending = f"{pending} {part}".strip() if pending else part.strip()
        if len(pending) >= _limit(pending, 30) and says_something(pending):
            sentences.append(pending)
            pending = ""
    return sentences or [tidy(text)]


def _telling(sentences: list[str]) -> list[str]:
    """The sentences after the first that use the message's commonest words, in the message's order."""
    counts = Counter(word for sentence in sentences for word in set(_words(sentence)))
    common = len(sentences) * 0.3 + 1  # in more sentences than that: a word like "with"

    def weight(at: int) -> float:
        words = set(_words(sentences[at]))
        return sum(counts[word] for word in words if 1 < counts[word] <= common) / (len(words) + 5)

    best = sorted(range(1, len(sentences)), key=lambda at: (-weight(at), at))[:MAX_DETAILS]
    return [sentences[at] for at in sorted(best)]


def _words(sentence: str) -> list[str]:
    """Words of a script with spaces; pairs of characters of one without."""
    if _limit(sentence, 100) == 100:
        return _WORD.findall(sentence.casefold())
    return [sentence[at : at + 2] for at in range(len(sentence) - 1)]


def _phrase(sentence: str, limit: int) -> str:
    """The sentence, or its first clauses, or its first words."""
    sentence = tidy(sentence)
    if len(sentence) > limit:
        clauses = [match.start() for match in _CLAUSE_END.finditer(sentence, 0, limit + 1)]
        sentence = sentence[: clauses[-1]] if clauses and clauses[-1] >= limit // 3 else cut(sentence, limit)
    return _closed(sentence)

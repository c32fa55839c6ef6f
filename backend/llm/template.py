"""Without a language model, offline: prompts that show the message's subject each time in another light, and
answers that are looked up in the text.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from backend.llm import vocabulary
from backend.llm.base import A, PromptRequest
from backend.llm.decks import Deck
from backend.llm.filling import fill
from backend.llm.prompts import as_prompt, fingerprint
from backend.llm.subject import Subject, subject_of
from backend.llm.vocabulary import Composition, Light, Medium, Palette
from backend.llm.wishes import Wishes, wishes_in


class TemplateLLM:
    """Writes prompts from word lists: what the message says is kept, what it leaves open is varied.

    The same message and seed bring the same prompts, and a longer list of them begins with the shorter.
    """

    name = "template"

    def write_prompts(self, request: PromptRequest) -> list[str]:
        """See `LLM.write_prompts`. Any message will do."""
        seen: set[str] = set()
        written: list[str] = []
        for prompt in _prompts(request):
            if len(written) >= request.count:
                break
            if (mark := fingerprint(prompt)) not in seen:
                seen.add(mark)
                written.append(prompt)
        return written

    def answer(self, instructions: str, content: str, schema: type[A]) -> A:  # noqa: ARG002
        """See `LLM.answer`. Looks up what the content says; nothing in it is understood."""
        return fill(schema, content)

    def check(self) -> None:
        """It is always there."""


@dataclass(frozen=True)
class _Picture:
    """What one prompt says, part by part."""

    subject: str
    composition: str
    light: str
    palette: str
    medium: str
    finish: str


def _prompts(request: PromptRequest) -> Iterator[str]:
    """Prompts without end; neighbours differ in every part that the message leaves open."""
    wishes = wishes_in(request.message)
    subjects = cycle(_subjects(subject_of(request.message), wishes))
    dice = random.Random(_number(request))  # noqa: S311 - it has to be repeatable
    orders = Deck((_subject_first, _medium_first, _in_one_breath), dice)
    compositions = Deck(_compositions(wishes, _shape(request)), dice)
    lights = Deck(_lights(wishes), dice)
    palettes = Deck(_palettes(wishes), dice)
    media = Deck(_media(wishes), dice)
    finishes = Deck(vocabulary.FINISHES, dice)
    while True:
        light = lights.deal()
        palette = palettes.deal(lambda card, light=light: bool(card.times & light.times))  # type: ignore[misc]
        picture = _Picture(
            next(subjects),
            compositions.deal().text,
            light.text,
            palette.text,
            media.deal().text,
            finishes.deal(),
        )
        yield as_prompt(orders.deal()(picture))


def _number(request: PromptRequest) -> int:
    """What the dice start from: message and seed. The count has no part in it."""
    text = f"{request.seed}\n{request.message}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


# -- the order of the parts ---------------------------------------------------------------------------


def _subject_first(picture: _Picture) -> str:
    return (
        f"{picture.subject}. {_capital(picture.composition)}; {picture.light}. "
        f"{_capital(picture.medium)}, palette of {picture.palette}, {picture.finish}."
    )


def _medium_first(picture: _Picture) -> str:
    return (
        f"{_capital(picture.medium)}: {picture.subject}. {_capital(picture.light)}. "
        f"{_capital(picture.composition)}, palette of {picture.palette}, {picture.finish}."
    )


def _in_one_breath(picture: _Picture) -> str:
    return (
        f"{picture.subject}, {picture.light}, palette of {picture.palette}, {picture.composition}, "
        f"{picture.medium}, {picture.finish}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- what goes with the message -----------------------------------------------------------------------


def _subjects(subject: Subject, wishes: Wishes) -> list[str]:
    """The lead alone, then with each detail that doesn't contradict what the message as a whole asks for."""
    details = (detail for detail in subject.details if wishes.allow(wishes_in(detail)))
    return [subject.lead, *(f"{subject.lead}. {detail}" for detail in details)]


def _shape(request: PromptRequest) -> str:
    if not request.width or not request.height:
        return ""
    ratio = request.width / request.height
    return "wide" if ratio >= 1.2 else "tall" if ratio <= 1 / 1.2 else ""


def _compositions(wishes: Wishes, shape: str) -> Sequence[Composition]:
    fitting = [card for card in vocabulary.COMPOSITIONS if card.shape in ("", shape)]
    return [card for card in fitting if card.view in wishes.views] or fitting


def _times(wishes: Wishes) -> frozenset[str]:
    return wishes.times or vocabulary.TIMES - wishes.denied or vocabulary.TIMES


def _lights(wishes: Wishes) -> Sequence[Light]:
    fitting = [card for card in vocabulary.LIGHTS if card.times & _times(wishes)]
    if wishes.weathers:
        return [card for card in fitting if card.weathers & wishes.weathers]
    return [card for card in fitting if not card.only and (wishes.times or not card.on_demand)]


def _palettes(wishes: Wishes) -> Sequence[Palette]:
    if wishes.monochrome:
        return vocabulary.MONOCHROMES
    if wishes.colours:
        return _palettes_around(wishes.colours)
    if wishes.pastel:
        pastels = [card for card in vocabulary.PALETTES if card.pastel]
        return [Palette(f"pastel {card.text}") for card in pastels]
    fitting = [card for card in vocabulary.PALETTES if card.times & _times(wishes)]
    return [
        card for card in fitting if card.seasons < vocabulary.SEASONS and card.seasons & wishes.seasons
    ] or fitting


def _palettes_around(colours: tuple[str, ...]) -> Sequence[Palette]:
    """The colours that were asked for, each time in other company."""
    others = [colour for colour in vocabulary.COMPANIONS if colour not in colours]
    shifted = others[5:] + others[:5]
    companies = [(one,) if len(colours) > 1 else (one, two) for one, two in zip(others, shifted, strict=True)]
    return [Palette(_listed((*colours, *company))) for company in companies]


def _listed(colours: tuple[str, ...]) -> str:
    return f"{', '.join(colours[:-1])} and {colours[-1]}"


def _media(wishes: Wishes) -> Sequence[Medium]:
    wanted = [card for card in vocabulary.MEDIA if card.family in wishes.media]
    wanted = wanted or [card for card in vocabulary.MEDIA if not card.on_demand]
    return [card for card in wanted if card.colourless or not wishes.monochrome] or wanted

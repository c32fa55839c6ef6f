"""What a prompt asks for, as far as its words are known; chance fills in the rest."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from gpu_worker.engines.sketch import vocabulary
from gpu_worker.engines.sketch.dice import Dice
from gpu_worker.engines.sketch.light import LIGHTS, Scheme, scheme
from gpu_worker.engines.sketch.palettes import COLOUR_WORDS, choose

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_NOT_COLOURS_HERE = {"rose": "flower", "orange": "fruit", "sand": "desert", "wine": "bottle", "gold": "medal"}
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_WEATHER_LIGHTS = frozenset({"overcast", "mist", "storm"})

# what each scene looks well in when the prompt names no light
_USUAL_LIGHTS: dict[str, tuple[str, ...]] = {
    "mountains": ("golden", "dawn", "dusk", "day", "mist", "blue"),
    "sea": ("golden", "dawn", "dusk", "day", "blue"),
    "city": ("dusk", "night", "golden", "blue", "neon"),
    "forest": ("dawn", "mist", "golden", "blue", "day"),
    "desert": ("golden", "dusk", "day", "dawn"),
    "cosmos": ("night",),
    "botanical": ("day", "dawn", "night", "golden", "blue"),
    "still_life": ("golden", "day", "dawn", "lamp", "overcast"),
    "interior": ("golden", "dawn", "lamp", "day", "blue"),
    "portrait": ("golden", "dusk", "dawn", "blue", "day"),
    "mesh": ("golden", "dusk", "dawn", "night", "blue"),
    "poster": ("day", "dawn", "golden", "dusk"),
    "papercut": ("golden", "dusk", "dawn", "blue", "day"),
}


@dataclass(frozen=True)
class Brief:
    """The whole order: which scene, in what light and colours, with what in it, in which medium."""

    scene: str
    scheme: Scheme
    weathers: frozenset[str]
    accents: frozenset[str]
    medium: str
    horizon: float | None  # share of the height from above; None: the scene decides

    def has(self, *names: str) -> bool:
        """One of these weathers or accents is asked for."""
        return not self.weathers.isdisjoint(names) or not self.accents.isdisjoint(names)


def read(prompt: str, dice: Dice) -> Brief:
    """Understands `prompt` (any text, any script, also none)."""
    text, words = _split(prompt)
    scene = _scene(_hits(vocabulary.SCENES, text, words), dice)
    lights = _hits(vocabulary.LIGHTS, text, words)
    if lights.keys() - _WEATHER_LIGHTS:  # "golden hour in the rain" is golden first
        lights = {name: score for name, score in lights.items() if name not in _WEATHER_LIGHTS}
    light = LIGHTS[dice.weighted(lights) if lights else dice.pick(_USUAL_LIGHTS[scene])]
    mediums = _hits(vocabulary.MEDIUMS, text, words)
    return Brief(
        scene=scene,
        scheme=scheme(choose(_colour_words(words), dice), light, vivid=_vivid(words)),
        weathers=frozenset(_hits(vocabulary.WEATHERS, text, words)),
        accents=frozenset(_hits(vocabulary.ACCENTS, text, words)),
        medium=dice.weighted(mediums) if mediums else dice.weighted({"clean": 3, "photo": 3, "paint": 2}),
        horizon=next((vocabulary.HORIZONS[word] for word in words if word in vocabulary.HORIZONS), None),
    )


def _split(prompt: str) -> tuple[str, list[str]]:
    text = unicodedata.normalize("NFC", prompt).casefold().replace("’", "'")
    for phrase in vocabulary.PHRASES:
        text = re.sub(rf"\b{phrase.replace(' ', '[ -]')}\b", phrase.replace(" ", "-"), text)
    return text, _WORD.findall(text)


def _hits(table: Mapping[str, str], text: str, words: list[str]) -> dict[str, float]:
    """How much each entry is meant: what is said first counts most, as it does to a reader."""
    found: dict[str, float] = {}
    for name, known in table.items():
        for word in known.split():
            if _UNSPACED.match(word) and word in text:
                found[name] = found.get(name, 0) + 1
            elif word in words:
                found[name] = found.get(name, 0) + 1 + 1.5 / (1 + words.index(word) / 4)
    return found


def _scene(hits: dict[str, float], dice: Dice) -> str:
    if not hits:
        return dice.pick(tuple(vocabulary.SCENES))
    best = max(hits.values())
    return dice.weighted({name: score**2 for name, score in hits.items() if score > best * 0.4})


def _colour_words(words: list[str]) -> list[str]:
    """Colour words in order, each once; those that may be things count only beside the word palette."""
    spoken = [word for word in words if word in COLOUR_WORDS]
    if not {"palette", "colors", "colours", "color", "colour", "tones", "hues"}.intersection(words):
        spoken = [word for word in spoken if word not in _NOT_COLOURS_HERE]
    return list(dict.fromkeys(spoken))


def _vivid(words: list[str]) -> float:
    known = [vocabulary.MOODS[word] for word in words if word in vocabulary.MOODS]
    return min(known) if known and min(known) < 1 else max(known, default=1.0)

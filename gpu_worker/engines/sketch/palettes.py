"""Which colours a picture is made of: three hues, from the prompt's colour words or a curated list."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_worker.engines.sketch.colour import Colour
from gpu_worker.engines.sketch.dice import Dice

# lightness is what the word means on its own; scenes take hue and chroma and light them as they need
COLOUR_WORDS: dict[str, Colour] = {
    "red": Colour(0.60, 0.20, 27), "crimson": Colour(0.52, 0.19, 18), "scarlet": Colour(0.60, 0.21, 30),
    "ruby": Colour(0.50, 0.18, 15), "maroon": Colour(0.40, 0.12, 20), "burgundy": Colour(0.40, 0.12, 10),
    "wine": Colour(0.42, 0.12, 8), "rust": Colour(0.54, 0.14, 42), "vermilion": Colour(0.63, 0.20, 35),
    "orange": Colour(0.73, 0.17, 55), "tangerine": Colour(0.74, 0.17, 52), "amber": Colour(0.78, 0.15, 70),
    "apricot": Colour(0.82, 0.11, 62), "peach": Colour(0.85, 0.09, 52), "coral": Colour(0.72, 0.15, 32),
    "salmon": Colour(0.74, 0.12, 30), "terracotta": Colour(0.60, 0.12, 42), "copper": Colour(0.62, 0.11, 50),
    "bronze": Colour(0.60, 0.09, 70), "brown": Colour(0.48, 0.08, 55), "chocolate": Colour(0.40, 0.07, 50),
    "sepia": Colour(0.58, 0.06, 70), "umber": Colour(0.42, 0.06, 60), "sienna": Colour(0.55, 0.11, 50),
    "ochre": Colour(0.68, 0.12, 75), "gold": Colour(0.80, 0.14, 85), "golden": Colour(0.80, 0.14, 82),
    "yellow": Colour(0.89, 0.16, 98), "mustard": Colour(0.74, 0.13, 88), "saffron": Colour(0.79, 0.16, 76),
    "lemon": Colour(0.92, 0.14, 104), "honey": Colour(0.78, 0.13, 78), "cream": Colour(0.94, 0.04, 90),
    "ivory": Colour(0.95, 0.025, 95), "beige": Colour(0.86, 0.04, 80), "sand": Colour(0.84, 0.06, 80),
    "tan": Colour(0.74, 0.07, 70), "olive": Colour(0.57, 0.09, 112), "lime": Colour(0.84, 0.19, 125),
    "green": Colour(0.62, 0.15, 148), "emerald": Colour(0.62, 0.14, 160), "jade": Colour(0.66, 0.11, 162),
    "sage": Colour(0.72, 0.05, 140), "moss": Colour(0.55, 0.09, 122), "mint": Colour(0.86, 0.09, 165),
    "forest-green": Colour(0.42, 0.10, 148), "teal": Colour(0.58, 0.10, 195),
    "turquoise": Colour(0.76, 0.11, 190),
    "aqua": Colour(0.80, 0.11, 200), "cyan": Colour(0.80, 0.12, 205), "azure": Colour(0.70, 0.13, 245),
    "blue": Colour(0.56, 0.16, 255), "navy": Colour(0.34, 0.10, 262), "cobalt": Colour(0.48, 0.17, 262),
    "cerulean": Colour(0.66, 0.12, 236), "sapphire": Colour(0.46, 0.16, 262),
    "indigo": Colour(0.42, 0.15, 278),
    "ultramarine": Colour(0.44, 0.19, 268), "denim": Colour(0.52, 0.09, 252),
    "ice-blue": Colour(0.88, 0.05, 225),
    "violet": Colour(0.54, 0.18, 298), "purple": Colour(0.50, 0.17, 305), "lavender": Colour(0.78, 0.09, 298),
    "lilac": Colour(0.78, 0.10, 312), "plum": Colour(0.44, 0.11, 330), "mauve": Colour(0.68, 0.08, 325),
    "magenta": Colour(0.62, 0.23, 340), "fuchsia": Colour(0.64, 0.23, 335), "pink": Colour(0.78, 0.12, 355),
    "rose": Colour(0.70, 0.13, 8), "blush": Colour(0.86, 0.06, 18), "black": Colour(0.22, 0.012, 270),
    "charcoal": Colour(0.36, 0.012, 260), "grey": Colour(0.62, 0.012, 255), "gray": Colour(0.62, 0.012, 255),
    "slate": Colour(0.50, 0.035, 250), "silver": Colour(0.80, 0.010, 250), "white": Colour(0.95, 0.008, 90),
    "pearl": Colour(0.92, 0.012, 80),
}  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """Three hues: `base` for sky and shadow, `glow` for light, `accent` for what should be seen."""

    name: str
    base: Colour
    glow: Colour
    accent: Colour
    spoken: bool = False  # the prompt named them: their lightness is meant too

    def flat(self, colour: Colour, lightness: float) -> Colour:
        """A colour of this palette for a flat shape: as it was named, or at a lightness that suits."""
        return colour if self.spoken else colour.lit(lightness)


def _curated(name: str, base: Sequence[float], glow: Sequence[float], accent: Sequence[float]) -> Palette:
    colours = [Colour(0.6, chroma, hue) for chroma, hue in (base, glow, accent)]
    return Palette(name, colours[0], colours[1], colours[2])


# chroma and hue of base, glow and accent
CURATED = (
    _curated("ember", (0.09, 282), (0.14, 58), (0.18, 28)),
    _curated("lagoon", (0.09, 200), (0.09, 68), (0.15, 32)),
    _curated("orchid", (0.12, 300), (0.10, 18), (0.14, 80)),
    _curated("glacier", (0.07, 238), (0.05, 212), (0.14, 45)),
    _curated("saffron", (0.08, 22), (0.14, 76), (0.11, 205)),
    _curated("meadow", (0.09, 155), (0.10, 98), (0.16, 25)),
    _curated("terracotta", (0.09, 38), (0.08, 75), (0.10, 195)),
    _curated("aurora", (0.10, 258), (0.13, 168), (0.16, 322)),
    _curated("rosewater", (0.06, 345), (0.07, 40), (0.12, 165)),
    _curated("plum", (0.10, 325), (0.12, 48), (0.13, 88)),
    _curated("slate", (0.04, 252), (0.06, 82), (0.15, 40)),
    _curated("fjord", (0.08, 222), (0.08, 90), (0.17, 30)),
    _curated("olive grove", (0.07, 125), (0.11, 88), (0.12, 40)),
    _curated("twilight", (0.12, 278), (0.12, 345), (0.14, 65)),
    _curated("copper", (0.05, 215), (0.13, 52), (0.12, 30)),
    _curated("jade", (0.08, 172), (0.07, 110), (0.15, 15)),
    _curated("sorbet", (0.10, 5), (0.11, 70), (0.11, 185)),
    _curated("indigo dye", (0.13, 268), (0.04, 85), (0.16, 35)),
    _curated("peacock", (0.10, 205), (0.13, 85), (0.15, 330)),
    _curated("heather", (0.08, 308), (0.07, 78), (0.11, 140)),
)

_WARM_CENTRE = 60.0


def choose(words: Sequence[str], dice: Dice) -> Palette:
    """The palette of these colour words (keys of COLOUR_WORDS, in the prompt's order), or a curated one."""
    if not words:
        return dice.pick(CURATED)
    colours = [COLOUR_WORDS[word] for word in words]
    name = " and ".join(words[:3])
    if len(colours) == 1:
        return Palette(name, *_family(colours[0], dice), spoken=True)
    if len(colours) == 2:
        base, glow = sorted(colours, key=_luminous)
        accent = dice.pick((glow.strong(1.25), base.turned(dice.sign() * 28).strong(1.2)))
        return Palette(name, base, glow, accent, spoken=True)
    base, accent, glow = sorted(colours[:3], key=_luminous)
    return Palette(name, base, glow, accent, spoken=True)


def _family(colour: Colour, dice: Dice) -> tuple[Colour, Colour, Colour]:
    """One colour word: the picture stays near that hue."""
    side = dice.sign()
    return colour, colour.turned(side * 14).strong(0.7), colour.turned(-side * 24).strong(1.15)


def _luminous(colour: Colour) -> float:
    """How much a colour looks like light: pale ones and warm ones do."""
    away = abs((colour.hue - _WARM_CENTRE + 180) % 360 - 180) / 180
    return colour.lightness + 0.5 * (1 - away) * min(1.0, colour.chroma / 0.1)

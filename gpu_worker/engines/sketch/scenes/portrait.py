"""Somebody: a head and shoulders in cut colour against a disc of light."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Point
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.leaves import sprig
from gpu_worker.engines.sketch.scenes.outlines import curve, ellipse, placed
from gpu_worker.engines.sketch.scenes.view import View

_SKIN = (
    Colour(0.84, 0.05, 62), Colour(0.74, 0.075, 58), Colour(0.63, 0.085, 55), Colour(0.50, 0.075, 50),
    Colour(0.39, 0.055, 45),
)  # fmt: skip

# in a unit box: x from -0.5 to 0.5, y from the picture's foot (0) upwards
_LONG_HAIR = [
    (-0.02, 0.93), (-0.17, 0.84), (-0.21, 0.64), (-0.24, 0.36), (-0.05, 0.33), (0.06, 0.33), (0.24, 0.36),
    (0.2, 0.64), (0.16, 0.84),
]  # fmt: skip
_SHOULDERS = [
    (-0.4, -0.05), (-0.385, 0.2), (-0.28, 0.315), (-0.1, 0.365), (0.1, 0.365), (0.28, 0.315), (0.385, 0.2),
    (0.4, -0.05),
]  # fmt: skip
_NECK_LEFT = [(-0.068, 0.55), (-0.07, 0.42), (-0.105, 0.36)]
_NECK_RIGHT = [(0.0, 0.305), (0.105, 0.36), (0.07, 0.42), (0.068, 0.55)]
_FACE = [
    (0.0, 0.88), (-0.108, 0.84), (-0.138, 0.71), (-0.118, 0.56), (-0.055, 0.475), (0.0, 0.46), (0.055, 0.475),
    (0.118, 0.56), (0.138, 0.71), (0.108, 0.84),
]  # fmt: skip
_FRINGE = [
    (-0.15, 0.66), (-0.16, 0.82), (-0.07, 0.93), (0.06, 0.93), (0.16, 0.83), (0.15, 0.66), (0.125, 0.76),
    (0.06, 0.815), (-0.06, 0.80), (-0.122, 0.76),
]  # fmt: skip


def paint_portrait(view: View) -> Iterator[float]:
    """One person, or a few side by side where the picture is wide."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    _ground(view)
    yield 0.3
    count = max(1, min(9, round(canvas.width / canvas.unit / 1.25)))
    size = canvas.unit * (0.92 if count == 1 else 0.82)
    for index in range(count):
        x = canvas.width * (index + 0.5) / count + dice.between(-0.05, 0.05) * canvas.unit
        disc = canvas.disc(x + size * dice.between(-0.1, 0.1), canvas.height - size * 0.56, size * 0.4)
        canvas.lay(mix(scheme.glow, scheme.palette.glow.lit(0.82), 0.5), disc.times(0.9))
        _leaves(view, x, size)
        Person(view, x, canvas.height + size * 0.06, size, dice.sign()).paint()
        yield 0.3 + 0.65 * (index + 1) / count
    yield 1.0


def _ground(view: View) -> None:
    canvas, scheme = view.canvas, view.scheme
    cells = (1.6 * canvas.width / canvas.unit, 1.6 * canvas.height / canvas.unit)
    drift = noise.field(view.dice, canvas.width, canvas.height, cells=cells, octaves=3)
    canvas.wash(
        ramp([scheme.zenith, scheme.sky, scheme.horizon]), canvas.y / canvas.height * 0.8 + drift * 0.3
    )


def _leaves(view: View, x: float, size: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    kind = dice.pick(("palm", "laurel", "eucalyptus", "willow"))
    for side in (-1, 1):
        for _ in range(3):
            foot = (x + side * size * dice.between(0.2, 0.46), canvas.height + size * 0.02)
            angle, length = side * dice.between(0.1, 0.8), size * dice.between(0.35, 0.62)
            whole, halves = sprig(view, foot, angle, length, kind)
            tone = mix(scheme.palette.base.lit(0.38), scheme.palette.accent.lit(0.55), dice.between(0, 0.35))
            canvas.lay(tone, canvas.outline(whole))
            canvas.shine(scheme.glow, canvas.outline(halves).times(0.1))


@dataclass(frozen=True)
class Person:
    """One person, from the chest up; `side` is where the shadow falls."""

    view: View
    x: float
    foot: float
    size: float
    side: int

    def paint(self) -> None:
        """Hair behind, neck, shoulders, face, hair in front."""
        dice, scheme = self.view.dice, self.view.scheme
        own = scheme.palette
        skin = mix(dice.pick(_SKIN), scheme.glow, 0.16)
        skin = skin.lit(skin.lightness * (0.72 + 0.28 * scheme.light.sky[1] / 0.82))
        hair = dice.pick((scheme.ink, mix(scheme.ink, own.accent.lit(0.4), 0.55), own.base.lit(0.3)))
        coat = dice.pick((own.accent.lit(0.56), own.base.lit(0.42), own.glow.lit(0.7)))
        self._hair_behind(hair)
        self._cut(curve(_SHOULDERS), coat)
        neck = [*curve(_NECK_LEFT, closed=False), *curve(_NECK_RIGHT, closed=False)]
        self._cut(neck, mix(skin, scheme.ink, 0.16))
        self._cut(curve(_FACE), skin)
        self._cut(curve([(a - self.side * 0.05 * (abs(a) == 0.06), b) for a, b in _FRINGE]), hair)
        self._features(skin)

    def _hair_behind(self, hair: Colour) -> None:
        style = self.view.dice.pick(("long", "bun", "short", "curls"))
        if style == "long":
            self._cut(curve(_LONG_HAIR), hair)
        elif style == "bun":
            self._cut(ellipse(0.0, 0.95, 0.075, 0.07), hair)
        elif style == "curls":
            for angle in np.linspace(-0.5, 3.6, 11):
                self._cut(ellipse(0.15 * np.cos(angle), 0.71 + 0.15 * np.sin(angle), 0.085, 0.085), hair)

    def _cut(self, points: Sequence[Point], colour: Colour) -> None:
        """One piece of paper, lit from the side and with a shadow on what lies below it."""
        canvas, scheme, size = self.view.canvas, self.view.scheme, self.size
        stamp = canvas.outline([placed(points, self.x, self.foot, size)])
        shadow = stamp.moved(self.side * size * 0.008, size * 0.012).softened(size * 0.016)
        canvas.shade(scheme.ink, shadow.times(0.28))
        columns = canvas.x[:, stamp.left : stamp.left + stamp.mask.shape[1]]
        share = (0.5 + (columns - self.x) / size * self.side * 1.9).clip(0, 1)[..., None]
        pale, dark = mix(colour, scheme.glow, 0.22), mix(colour, scheme.ink, 0.26)
        canvas.lay(pale.rgb + (dark.rgb - pale.rgb) * share, stamp)

    def _features(self, skin: Colour) -> None:
        """As little of a face as says face: lids, brows, the side of a nose, a mouth."""
        canvas, side = self.view.canvas, self.side
        shade = mix(skin, self.view.scheme.ink, 0.62)
        lids = [_sickle(eye, y, half, bow) for eye in (-0.055, 0.055) for y, half, bow in _LIDS]
        canvas.lay(shade, canvas.outline([placed(lid, self.x, self.foot, self.size) for lid in lids]))
        nose = curve(
            [(0, 0.70), (side * 0.02, 0.62), (side * 0.026, 0.592), (0, 0.586), (-side * 0.004, 0.63)]
        )
        canvas.shade(shade, canvas.outline([placed(nose, self.x, self.foot, self.size)]).times(0.32))
        lips = mix(mix(skin, Colour(0.5, 0.13, 20), 0.55), self.view.scheme.accent, 0.2)
        upper = [(-0.036, 0.538), (-0.012, 0.546), (0, 0.543), (0.012, 0.546), (0.036, 0.538)]
        mouth = [
            *curve(upper, closed=False),
            *curve([(0.036, 0.536), (0, 0.518), (-0.036, 0.536)], closed=False),
        ]
        canvas.lay(lips, canvas.outline([placed(mouth, self.x, self.foot, self.size)]))


_LIDS = ((0.672, 0.03, -0.012), (0.718, 0.034, 0.016))  # height, half width, how far its middle is bowed


def _sickle(x: float, y: float, half: float, bow: float) -> list[Point]:
    """A thin bent stroke that comes to a point at both ends."""
    there = curve([(x - half, y), (x, y + bow), (x + half, y)], closed=False)
    back = curve([(x + half, y), (x, y + bow + 0.008), (x - half, y)], closed=False)
    return [*there, *back]

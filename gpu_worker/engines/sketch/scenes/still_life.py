"""A table by a window: vessels, fruit, books and a branch, in one light."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.leaves import flower, sprig
from gpu_worker.engines.sketch.scenes.objects import PROFILES, ball, books, turned
from gpu_worker.engines.sketch.scenes.view import View


def paint_still_life(view: View) -> Iterator[float]:
    """Wall, light, table, and a group of things that overlap."""
    canvas, dice = view.canvas, view.dice
    side = dice.sign()  # where shadows fall
    table = view.horizon(0.64, 0.72)
    paint_wall(view, table, side)
    yield 0.25
    paint_table(view, table, side)
    yield 0.4
    groups = max(1, round(canvas.width / canvas.unit / 1.5))
    for index in range(groups):
        centre = canvas.width * (index + 0.5) / groups
        Group(view, centre, table, side, canvas.unit).paint()
        yield 0.4 + 0.55 * (index + 1) / groups
    yield 1.0


def tone(view: View, colour: Colour, lightness: float) -> Colour:
    """A colour of the palette as it looks on a thing in this light."""
    light = view.scheme.light
    return colour.strong(min(1.1, light.chroma)).lit(lightness * (0.62 + 0.38 * light.sky[1] / 0.8))


def paint_wall(view: View, table: float, side: int) -> None:
    """A plain wall, lighter where the light comes from, with the window's shape thrown on it."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    wall = mix(scheme.palette.base, scheme.palette.glow, 0.35).strong(0.55 * scheme.light.chroma)
    level = 0.34 + 0.5 * scheme.light.sky[1]
    across = canvas.x / canvas.width if side > 0 else 1 - canvas.x / canvas.width
    cells = (1.5 * canvas.width / canvas.unit, 1.5 * canvas.height / canvas.unit)
    drift = noise.field(dice, canvas.width, canvas.height, cells=cells, octaves=4)
    field = across * 0.62 + 0.22 * canvas.y / canvas.height + 0.22 * (drift - 0.4)
    canvas.wash(ramp([wall.lit(level + 0.12), wall.lit(level), wall.lit(level - 0.17)]), field)
    if dice.chance(0.55):
        _thrown_window(view, table, side)
    else:
        _arch(view, table, side)


def _thrown_window(view: View, table: float, side: int) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    wide, tall = canvas.unit * dice.between(0.13, 0.18), canvas.unit * dice.between(0.19, 0.24)
    lean, gap = -side * canvas.unit * 0.11, canvas.unit * 0.018
    left, top = canvas.width * (0.5 - 0.1 * side) - wide, table - canvas.unit * dice.between(0.52, 0.6)
    panes = []
    for column in range(3):
        for row in range(2):
            x, y = left + column * (wide + gap), top + row * (tall + gap)
            drop = side * column * wide * 0.18
            panes.append(
                [
                    (x + lean * row, y + drop),
                    (x + wide + lean * row, y + drop + side * wide * 0.18),
                    (x + wide + lean * (row + 1), y + tall + drop + side * wide * 0.18),
                    (x + lean * (row + 1), y + tall + drop),
                ]
            )
    canvas.lay(scheme.glow, canvas.outline(panes).softened(canvas.unit * 0.011).times(0.5))
    shadow = sprig(view, (left - canvas.unit * 0.2, top + tall * 2.4), 0.9, canvas.unit * 0.75, "laurel")[0]
    canvas.shade(
        mix(scheme.near, scheme.sky, 0.5), canvas.outline(shadow).softened(canvas.unit * 0.016).times(0.4)
    )


def _arch(view: View, table: float, side: int) -> None:
    """A niche in the wall, or a big disc: something calm for the group to stand before."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    x, radius = canvas.width * (0.5 + side * dice.between(0.02, 0.1)), canvas.unit * dice.between(0.27, 0.34)
    colour = tone(view, scheme.palette.accent if dice.chance(0.5) else scheme.palette.glow, 0.74).strong(0.8)
    disc = canvas.disc(x, table - radius * dice.between(0.85, 1.2), radius)
    if dice.chance(0.5):
        foot = [
            (x - radius, table),
            (x - radius, table - radius * 1.1),
            (x + radius, table - radius * 1.1),
            (x + radius, table),
        ]
        disc = canvas.disc(x, table - radius * 1.1, radius)
        canvas.lay(colour, canvas.outline([foot]))
    canvas.lay(colour, disc)


def paint_table(view: View, table: float, side: int) -> None:
    """The table's top: lit from one side, with the wall's shadow along its edge."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    top = int(np.clip(table, 1, canvas.height - 1))
    wood = mix(scheme.palette.glow, scheme.palette.base, dice.between(0.2, 0.8)).strong(
        0.6 * scheme.light.chroma
    )
    level = 0.30 + 0.47 * scheme.light.sky[1]
    across = canvas.x / canvas.width if side > 0 else 1 - canvas.x / canvas.width
    rows = canvas.height - top
    down = (canvas.y[top:] - top) / rows
    grain = noise.field(dice, canvas.width, rows, cells=(1.5, 26 * rows / canvas.unit), octaves=4)
    place = (across * 0.55 + 0.3 * down + 0.18 * (grain - 0.5)).clip(0, 1)
    colours = ramp([wood.lit(level + 0.13), wood.lit(level), wood.lit(level - 0.14)])
    canvas.rgb[top:] = colours[(place * (len(colours) - 1)).astype(np.intp)]
    edge = np.exp(-(down / 0.06)) * 0.28
    canvas.shade(scheme.ink, Stamp(np.broadcast_to(edge, (rows, canvas.width)).astype(np.float32), 0, top))


@dataclass(frozen=True)
class Group:
    """Things that stand together: something tall behind, something round in front."""

    view: View
    centre: float
    table: float  # where the table's edge lies
    side: int  # where shadows fall
    unit: float  # what the things are measured in

    def paint(self) -> None:
        """From back to front."""
        view, dice, unit = self.view, self.view.dice, self.unit
        tones = self._tones()
        depth = view.canvas.height - self.table
        back, front = self.table + depth * 0.16, self.table + depth * 0.52
        tall = unit * dice.between(0.33, 0.42)
        x = self.centre - self.side * unit * dice.between(0.02, 0.1)
        kind = dice.pick(("bottle", "amphora") if view.brief.has("bottle") else _VESSELS)
        if kind != "bottle" and (view.brief.has("flowers", "plant") or dice.chance(0.65)):
            self._branch(x, back - tall * 0.97, tones[1])
        turned(view, x, back, tall, PROFILES[kind], tones[0], self.side)
        if view.brief.has("bottle") or dice.chance(0.6):
            other, size = dice.pick(("bottle", "jug", "jar")), tall * dice.between(0.6, 0.8)
            turned(
                view,
                x + self.side * unit * 0.21,
                back + unit * 0.02,
                size,
                PROFILES[other],
                tones[2],
                self.side,
            )
        self._front(x - self.side * unit * 0.2, front, tones)
        self._fruit(x, front)

    def _tones(self) -> list[Colour]:
        own = self.view.scheme.palette
        levels = ((own.accent, 0.68), (own.glow, 0.82), (own.base, 0.52))
        return self.view.dice.shuffled([tone(self.view, colour, level) for colour, level in levels])

    def _branch(self, x: float, y: float, colour: Colour) -> None:
        view, dice, unit = self.view, self.view.dice, self.unit
        kind = dice.pick(("laurel", "eucalyptus", "willow"))
        green = tone(view, view.scheme.palette.base.turned(dice.between(-12, 12)), 0.5)
        for _ in range(dice.whole(3, 5)):
            angle, length = dice.between(-0.75, 0.75), unit * dice.between(0.26, 0.4)
            whole, halves = sprig(view, (x, y + unit * 0.03), angle, length, kind)
            view.canvas.lay(
                green.lit(green.lightness + dice.between(-0.08, 0.06)), view.canvas.outline(whole)
            )
            view.canvas.shine(view.scheme.glow, view.canvas.outline(halves).times(0.12))
        if view.brief.has("flowers") or dice.chance(0.5):
            petals = mix(colour, view.scheme.palette.accent.lit(0.72), 0.6)
            for _ in range(dice.whole(2, 4)):
                at = (x + unit * dice.between(-0.15, 0.15), y - unit * dice.between(0.1, 0.26))
                flower(view, *at, unit * dice.between(0.045, 0.075), petals, dice.pick((5, 6, 8)))

    def _front(self, x: float, foot: float, tones: list[Colour]) -> None:
        """Books with a cup on them, a cup, or a bowl."""
        view, unit = self.view, self.unit
        if view.brief.has("books") or view.dice.chance(0.25):
            stack = [tones[1], tones[2], tones[0]][: view.dice.whole(2, 3)]
            high = books(view, x, foot, unit * 0.27, self.side, stack)
            pale = view.scheme.paper.lit(0.84)
            turned(view, x, foot - high + unit * 0.006, unit * 0.1, PROFILES["cup"], pale, self.side)
        elif view.brief.has("cup"):
            turned(view, x, foot, unit * 0.14, PROFILES["cup"], tones[1], self.side)
        else:
            turned(view, x, foot - unit * 0.01, unit * 0.12, PROFILES["bowl"], tones[2], self.side)

    def _fruit(self, x: float, foot: float) -> None:
        view, dice, unit = self.view, self.view.dice, self.unit
        colour = tone(view, view.scheme.palette.accent.turned(dice.between(-10, 25)), 0.7).strong(1.1)
        for across, down, radius in sorted(_FRUIT[: dice.whole(2, 3)], key=lambda place: place[1]):
            one = colour.turned(dice.between(-14, 14)).lit(colour.lightness + dice.between(-0.06, 0.06))
            size = unit * radius * dice.between(0.9, 1.15)
            stalked = view.brief.has("fruit") or dice.chance(0.7)
            ball(view, x + self.side * unit * across, foot + unit * down, size, one, self.side, fruit=stalked)


_VESSELS = ("vase", "jug", "amphora", "pebble-vase", "vase")
_FRUIT = ((0.16, 0.02, 0.075), (0.05, 0.06, 0.066), (0.31, 0.05, 0.06))  # across, down, radius

"""A room with a window: the weather is outside, the light falls in."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Path
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.shelves import paint_shelves
from gpu_worker.engines.sketch.scenes.still_life import Group, tone
from gpu_worker.engines.sketch.scenes.view import View
from gpu_worker.engines.sketch.scenes.window import Box, paint_window, window_box


def paint_interior(view: View) -> Iterator[float]:
    """Wall, window and its view, shelves, a table with things on it, a lamp."""
    canvas, dice = view.canvas, view.dice
    side = dice.sign()
    table = view.horizon(0.76, 0.82)
    _wall(view)
    yield 0.15
    box = window_box(view, table)
    paint_window(view, box)
    yield 0.5
    if view.brief.has("books") or dice.chance(0.55):
        paint_shelves(view, box, table)
    yield 0.7
    _light_fall(view, box, side)
    _table(view, table, side)
    for centre in _places(view):
        Group(view, centre, table, side, canvas.unit * 0.52).paint()
    yield 0.9
    _lamp(view, box, table)
    yield 1.0


def _places(view: View) -> list[float]:
    canvas, dice = view.canvas, view.dice
    count = max(1, round(canvas.width / canvas.unit / 1.6))
    if count == 1:
        return [canvas.width * dice.pick((0.3, 0.7))]
    return [canvas.width * (index + dice.between(0.35, 0.65)) / count for index in range(count)]


def _wall(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    wall = mix(scheme.palette.base, scheme.palette.glow, 0.15).strong(0.75 * scheme.light.chroma)
    level = 0.16 + 0.46 * scheme.light.sky[1]
    across = np.abs(canvas.x / canvas.width - 0.5) * 1.5
    cells = (2 * canvas.width / canvas.unit, 2 * canvas.height / canvas.unit)
    drift = noise.field(dice, canvas.width, canvas.height, cells=cells, octaves=3)
    canvas.wash(
        ramp([wall.lit(level + 0.08), wall.lit(level - 0.10)]),
        across + 0.25 * (drift - 0.5) + 0.2 * canvas.y / canvas.height,
    )
    if dice.chance(0.5):
        _panels(view, wall.lit(level - 0.07))


def _panels(view: View, dark: Colour) -> None:
    canvas = view.canvas
    step = canvas.unit * 0.12
    thin = max(0.5, canvas.unit * 0.0016)
    lines: list[Path] = []
    x = step / 2
    while x < canvas.width:
        lines.append([(x, 0), (x + thin, 0), (x + thin, canvas.height), (x, canvas.height)])
        x += step
    canvas.lay(dark, canvas.outline(lines).times(0.7))


def _light_fall(view: View, box: Box, side: int) -> None:
    """The window's glow in the room, and a beam that falls to one side."""
    canvas, scheme = view.canvas, view.scheme
    left, top, right, foot = box
    middle, strength = (
        (left + right) / 2,
        0.16 if scheme.light.night or scheme.light.name == "storm" else 0.34,
    )
    canvas.shine(
        scheme.glow, canvas.halo(middle, (top + foot) / 2, (foot - top) * 0.62, 1.4).times(strength * 0.8)
    )
    reach = side * (right - left) * 0.9
    beam = [(left, top), (right, top), (right + reach, canvas.height), (left + reach, canvas.height)]
    stamp = canvas.outline([beam]).softened(canvas.unit * 0.04)
    canvas.shine(scheme.glow, stamp.times(strength * 0.32))


def _table(view: View, table: float, side: int) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    top = int(np.clip(table, 1, canvas.height - 1))
    rows = canvas.height - top
    wood = mix(scheme.palette.glow, scheme.palette.base, 0.3).strong(0.7 * scheme.light.chroma)
    level = 0.17 + 0.34 * scheme.light.sky[1]
    grain = noise.field(dice, canvas.width, rows, cells=(2, 30 * rows / canvas.unit), octaves=4)
    lit = np.exp(-(((canvas.x / canvas.width - 0.5 - side * 0.1) / 0.33) ** 2))
    place = (lit * 0.75 + 0.2 * (grain - 0.5) - 0.35 * (canvas.y[top:] - top) / rows + 0.2).clip(0, 1)
    colours = ramp(
        [wood.lit(level - 0.06), wood.lit(level + 0.05), mix(wood, scheme.glow, 0.4).lit(level + 0.22)]
    )
    canvas.rgb[top:] = colours[(place * (len(colours) - 1)).astype(np.intp)]


def _lamp(view: View, box: Box, table: float) -> None:
    """A hanging lamp, where the light is low."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    if scheme.light.sky[1] > 0.6 and not dice.chance(0.25):
        return
    x = canvas.width * dice.pick((0.2, 0.8)) if canvas.width > canvas.unit * 1.15 else (box[0] + box[2]) / 2
    y, size = table * dice.between(0.22, 0.32), canvas.unit * 0.055
    thin = max(0.5, canvas.unit * 0.0018)
    canvas.lay(scheme.near, canvas.outline([[(x - thin, 0), (x + thin, 0), (x + thin, y), (x - thin, y)]]))
    canvas.shine(scheme.glow, canvas.halo(x, y + size * 1.2, canvas.unit * 0.2, 1.2).times(0.55))
    shade = [(x - size * 0.35, y), (x + size * 0.35, y), (x + size, y + size), (x - size, y + size)]
    canvas.lay(tone(view, scheme.palette.accent, 0.6), canvas.outline([shade]))
    bulb = canvas.disc(x, y + size * 1.02, size * 0.42)
    canvas.lay(scheme.glow.lit(0.98), bulb)
    canvas.shine(scheme.glow, canvas.halo(x, y + size * 1.1, size * 1.1).times(0.8))

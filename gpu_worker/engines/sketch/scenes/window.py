"""A window in a wall, and the little landscape that is seen through it."""

from dataclasses import replace

import numpy as np

from gpu_worker.engines.sketch.canvas import Canvas, Path, Stamp
from gpu_worker.engines.sketch.colour import RGB, mix
from gpu_worker.engines.sketch.scenes.land import paint_mountains
from gpu_worker.engines.sketch.scenes.sea import paint_coast
from gpu_worker.engines.sketch.scenes.view import View

Box = tuple[float, float, float, float]  # left, top, right, foot


def window_box(view: View, table: float) -> Box:
    """Where the window goes, over a table whose edge lies at `table`."""
    canvas, dice = view.canvas, view.dice
    tall = min(table * 0.82, canvas.unit * 0.72)
    wide = min(canvas.width * 0.8, tall * dice.between(0.66, 1.25))
    centre = canvas.width * (0.5 if canvas.width < canvas.unit * 1.2 else dice.pick((0.42, 0.5, 0.58)))
    foot = table - canvas.unit * 0.05
    return centre - wide / 2, foot - tall, centre + wide / 2, foot


def paint_window(view: View, box: Box) -> None:
    """Frame, glass, bars and sill."""
    canvas, scheme = view.canvas, view.scheme
    left, top, right, foot = box
    arched = view.dice.chance(0.5)
    frame = mix(scheme.near, scheme.palette.glow.lit(0.5), 0.18)
    border = canvas.unit * 0.022
    around = _opening(canvas, (left - border, top - border, right + border, foot + border), arched=arched)
    canvas.shade(scheme.ink, around.softened(canvas.unit * 0.03).times(0.4))
    canvas.lay(frame, _opening(canvas, (left - border, top - border, right + border, foot), arched=arched))
    glass = _opening(canvas, box, arched=arched)
    canvas.lay(_outside(view, glass), glass)
    canvas.lay(frame, _common(canvas, canvas.outline(_bars(view, box)), glass))
    out = border * 2.2
    sill: Path = [
        (left - out, foot),
        (right + out, foot),
        (right + out, foot + border),
        (left - out, foot + border),
    ]
    canvas.lay(mix(frame, scheme.glow, 0.3), canvas.outline([sill]))


def _opening(canvas: Canvas, box: Box, *, arched: bool) -> Stamp:
    left, top, right, foot = box
    if not arched:
        return canvas.outline([[(left, foot), (left, top), (right, top), (right, foot)]])
    radius, middle = (right - left) / 2, (left + right) / 2
    rise = min(radius, (foot - top) * 0.5)
    turns = [float(angle) for angle in np.linspace(0, np.pi, 48)]
    arc = [(middle - radius * float(np.cos(a)), top + rise - rise * float(np.sin(a))) for a in turns]
    return canvas.outline([[(left, foot), *arc, (right, foot)]])


def _outside(view: View, glass: Stamp) -> RGB:
    """A landscape of its own, exactly as large as the glass."""
    rows, columns = glass.mask.shape
    brief = replace(view.brief, horizon=None, accents=view.brief.accents - {"figure", "house"})
    inner = View(Canvas(columns, rows), brief, view.dice)
    coast = view.brief.has("lighthouse", "boat") or view.dice.chance(0.45)
    for _ in (paint_coast if coast else paint_mountains)(inner):
        pass
    return np.asarray(inner.canvas.rgb + (view.scheme.glow.rgb - inner.canvas.rgb) * 0.10)


def _bars(view: View, box: Box) -> list[Path]:
    left, top, right, foot = box
    unit = view.canvas.unit
    thin = unit * 0.006
    columns = view.dice.pick((2, 3)) if right - left > unit * 0.5 else 2
    bars: list[Path] = []
    for column in range(1, columns):
        x = left + (right - left) * column / columns
        bars.append([(x - thin, top), (x + thin, top), (x + thin, foot), (x - thin, foot)])
    for row in (1, 2):
        y = top + (foot - top) * row / 3
        bars.append([(left, y - thin), (right, y - thin), (right, y + thin), (left, y + thin)])
    return bars


def _common(canvas: Canvas, first: Stamp, second: Stamp) -> Stamp:
    """The part of one mask that lies inside another."""
    whole = np.zeros((canvas.height, canvas.width), dtype=np.float32)
    rows, columns = first.mask.shape
    whole[first.top : first.top + rows, first.left : first.left + columns] = first.mask
    rows, columns = second.mask.shape
    part = whole[second.top : second.top + rows, second.left : second.left + columns]
    return Stamp(part * second.mask, second.left, second.top)

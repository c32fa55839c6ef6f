"""Sheets of coloured paper with wavy edges, one above another, each with its shadow."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.view import View


def paint_papercut(view: View) -> Iterator[float]:
    """Sheets of coloured paper with wavy edges, one above another, each with its shadow."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    canvas.wash(ramp([scheme.sky, scheme.horizon, scheme.glow]), canvas.y / canvas.height)
    x, y, radius = (
        canvas.width * dice.between(0.3, 0.7),
        canvas.height * dice.between(0.26, 0.42),
        canvas.unit * dice.between(0.13, 0.2),
    )
    for size, strength in ((1.7, 0.25), (1.32, 0.4), (1.0, 1.0)):
        canvas.lay(
            mix(scheme.glow, scheme.horizon, 0.2).lit(0.96), canvas.disc(x, y, radius * size).times(strength)
        )
    yield 0.2
    layers = dice.whole(6, 8)
    own = scheme.palette
    bright, deep = own.flat(own.glow, 0.8), scheme.palette.base.lit(max(0.16, scheme.light.near - 0.05))
    middle = own.flat(own.accent, 0.6)
    table = [
        mix(bright, middle, t * 2) if t < 0.5 else mix(middle, deep, t * 2 - 1)
        for t in np.linspace(0, 1, layers)
    ]
    start = canvas.height * dice.between(0.34, 0.46)
    for index, colour in enumerate(table):
        _sheet(
            view,
            start + (canvas.height * 0.98 - start) * (index / layers) ** 1.1,
            colour.strong(scheme.light.chroma),
        )
        yield 0.2 + 0.75 * (index + 1) / layers
    paper_grain(view, 0.05)
    yield 1.0


def _sheet(view: View, base: float, colour: Colour) -> None:
    canvas, dice = view.canvas, view.dice
    places = canvas.edge() / canvas.unit
    swing = canvas.unit * dice.between(0.05, 0.11)
    phase, pace = dice.between(0, 6.3), dice.between(2.2, 4.4)
    edge = base - swing * (np.sin(places * pace + phase) + 0.5 * np.sin(places * pace * 2.1 + phase * 1.7))
    stamp = canvas.below(np.asarray(edge, dtype=np.float32))
    canvas.shade(
        view.scheme.ink, stamp.moved(0, -canvas.unit * 0.004).softened(canvas.unit * 0.02).times(0.42)
    )
    crest = edge.reshape(canvas.width, -1).mean(axis=1)
    down = ((canvas.y[stamp.top :] - crest) / (canvas.unit * 0.3)).clip(0, 1)[..., None]
    pale, dark = colour.lit(colour.lightness + 0.045).rgb, colour.lit(colour.lightness - 0.05).rgb
    canvas.lay(pale + (dark - pale) * down, stamp)


def paper_grain(view: View, strength: float) -> None:
    """Fibres, as in coloured paper."""
    canvas = view.canvas
    fibre = noise.field(
        view.dice,
        canvas.width,
        canvas.height,
        cells=(170 * canvas.width / canvas.unit, 170 * canvas.height / canvas.unit),
        octaves=3,
    )
    canvas.shade(view.scheme.ink, Stamp((fibre * strength * 2).clip(0, 1)))

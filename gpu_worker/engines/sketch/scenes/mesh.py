"""A gradient mesh: soft colours that flow into each other, with orbs of glass or a ribbon of lines."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, Field, mix, ramp
from gpu_worker.engines.sketch.scenes.view import View


def paint_mesh(view: View) -> Iterator[float]:
    """A gradient mesh: soft colours that flow into each other, and a few forms of glass."""
    canvas, dice = view.canvas, view.dice
    colours = _flags(view, 6)
    warp_x, warp_y = (_drift(view, 1.3) for _ in range(2))
    yield 0.2
    x = canvas.x / canvas.unit + (warp_x - 0.5) * 1.1
    y = canvas.y / canvas.unit + (warp_y - 0.5) * 1.1
    wide, tall = canvas.width / canvas.unit, canvas.height / canvas.unit
    total = np.zeros((canvas.height, canvas.width, 1), dtype=np.float32)
    for index in range(int(min(24, 7 * wide * tall))):
        at = (dice.between(-0.1, 1.1) * wide, dice.between(-0.1, 1.1) * tall)
        weight = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / dice.between(0.05, 0.16))[..., None] + 1e-5
        canvas.rgb += weight * colours[index % len(colours)].rgb
        total += weight
    canvas.rgb /= total
    yield 0.6
    kind = dice.pick(("orbs", "ribbons", "ribbons", "orbs"))
    if kind == "orbs":
        _orbs(view)
    elif kind == "ribbons":
        _ribbons(view)
    yield 1.0


def _drift(view: View, cells: float) -> Field:
    canvas = view.canvas
    size = (cells * canvas.width / canvas.unit, cells * canvas.height / canvas.unit)
    return noise.field(view.dice, canvas.width, canvas.height, cells=size, octaves=2, roughness=0.35)


def _flags(view: View, count: int) -> list[Colour]:
    """Clear colours of the palette, light and dark as the light asks."""
    scheme, dice = view.scheme, view.dice
    dark, force = scheme.light.sky[1] < 0.6, max(0.9, scheme.light.chroma) * 1.15
    own = scheme.palette
    tones = [
        scheme.zenith.strong(1.5) if dark else scheme.sky.strong(1.3),
        own.flat(own.accent, 0.6 if dark else 0.74).strong(force),
        own.flat(own.glow, 0.78 if dark else 0.88).strong(force),
        own.flat(own.base, 0.42 if dark else 0.64).strong(1.2 * force),
        scheme.near.strong(1.3) if dark else scheme.horizon,
        mix(scheme.palette.base, scheme.palette.accent, 0.5).lit(0.5 if dark else 0.7).strong(1.3 * force),
    ]
    return dice.shuffled(tones)[:count]


def _orbs(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    for _ in range(int(min(9, dice.whole(2, 4) * max(canvas.width, canvas.height) / canvas.unit))):
        radius = canvas.unit * dice.between(0.08, 0.26)
        x, y = dice.between(0.1, 0.9) * canvas.width, dice.between(0.15, 0.85) * canvas.height
        tint = dice.pick((scheme.palette.accent, scheme.palette.glow, scheme.palette.base)).lit(
            dice.between(0.62, 0.85)
        )
        canvas.shade(
            scheme.ink, canvas.disc(x, y + radius * 0.16, radius).softened(radius * 0.22).times(0.30)
        )
        stamp = canvas.disc(x, y, radius)
        rows, columns = stamp.mask.shape
        u = (canvas.x[:, stamp.left : stamp.left + columns] - x) / radius
        v = (canvas.y[stamp.top : stamp.top + rows] - y) / radius
        canvas.lay(tint, stamp.times((0.42 - 0.38 * (u * 0.5 + v * 0.8)).clip(0.08, 0.9)))
        rim = noise.ease(0.80, 1.0, np.sqrt(u**2 + v**2)) * (0.35 - 0.6 * (u * 0.5 + v * 0.8)).clip(0, 1)
        canvas.shine(scheme.glow.lit(0.97), stamp.times(rim * 0.75))


def _ribbons(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    base, swing = canvas.height * dice.between(0.35, 0.65), canvas.unit * dice.between(0.14, 0.24)
    places = canvas.x[0] / canvas.unit
    first, second = (
        noise.line(dice, places * dice.between(0.8, 1.3) + dice.between(0, 20), octaves=2, roughness=0.3)
        for _ in range(2)
    )
    count = 26
    table = ramp(
        [scheme.palette.accent.lit(0.66), scheme.palette.glow.lit(0.9), scheme.palette.base.lit(0.6)],
        size=count,
    )
    thin = max(0.6, canvas.unit * 0.0016)
    for index in range(count):
        share = index / (count - 1)
        centre = (
            base + swing * (first * (1 - share) + second * share * 1.3) + canvas.unit * 0.22 * (share - 0.5)
        )
        line = np.exp(-(((canvas.y - centre) / thin) ** 2)) * 0.75
        canvas.lay(np.asarray(table[index]), Stamp(np.asarray(line, dtype=np.float32)))

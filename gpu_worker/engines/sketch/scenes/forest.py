"""A wood: trunks that fade into light, a canopy, ferns at the foot."""

import math
from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Path, Stamp
from gpu_worker.engines.sketch.colour import mix, ramp
from gpu_worker.engines.sketch.scenes import silhouettes
from gpu_worker.engines.sketch.scenes.leaves import fern
from gpu_worker.engines.sketch.scenes.outlines import curve
from gpu_worker.engines.sketch.scenes.sky import haze, stars, weather
from gpu_worker.engines.sketch.scenes.view import View


def paint_forest(view: View) -> Iterator[float]:
    """Rows of trunks from pale to dark, with light falling through them."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    ground = view.horizon(0.72, 0.8)
    light = (canvas.width * dice.between(0.25, 0.75), canvas.height * dice.between(0.2, 0.45))
    canvas.wash(
        ramp([scheme.sky, scheme.horizon, scheme.horizon, scheme.far], [0, 0.5, 0.7, 1]),
        canvas.y / canvas.height,
    )
    if scheme.light.night:
        stars(view, ground * 0.7)
    canvas.lay(scheme.glow, canvas.halo(*light, canvas.unit * 0.36, 1.3).times(0.85))
    yield 0.2
    rows = 5
    for index in range(rows):
        far = 1 - index / (rows - 1)
        _row(view, ground, far)
        if far > 0:
            canvas.lay(scheme.glow, canvas.halo(*light, canvas.unit * 0.38, 1.2).times(0.30 * far))
            haze(view, ground, canvas.unit * 0.17, 0.18 + 0.35 * far)
        yield 0.2 + 0.5 * (index + 1) / rows
    _shafts(view, light)
    yield 0.8
    _ground(view, ground)
    weather(view)
    yield 1.0


def _row(view: View, ground: float, far: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    colour = scheme.depth(0.9 * far**0.8)
    foot = ground + (canvas.height - ground) * (1 - far) ** 1.4 * 0.75
    _floor(view, foot, far)
    paths: list[Path] = []
    x = canvas.unit * dice.between(-0.1, 0.1)
    while x < canvas.width * 1.05:
        wide = canvas.unit * (0.008 + 0.036 * (1 - far) ** 1.5) * dice.between(0.7, 1.3)
        paths.extend(_trunk(view, x, foot + dice.between(0, 0.03) * canvas.unit, wide))
        x += canvas.unit * (0.06 + 0.26 * (1 - far) ** 1.2) * dice.between(0.45, 1.6)
    stamp = canvas.outline(paths)
    canvas.lay(colour, stamp)
    _canopy(view, far)


def _trunk(view: View, x: float, foot: float, wide: float) -> Iterator[Path]:
    dice, canvas = view.dice, view.canvas
    lean, bend = dice.between(-0.05, 0.05) * canvas.height, dice.between(-1.2, 1.2) * wide
    left = [
        (x - wide * 0.62, foot + 2),
        (x - wide * 0.42, foot - canvas.unit * 0.05),
        (x - wide * 0.36 + bend, foot / 2),
        (x - wide * 0.24 + lean, -4),
    ]
    right = [
        (x + wide * 0.24 + lean, -4),
        (x + wide * 0.36 + bend, foot / 2),
        (x + wide * 0.42, foot - canvas.unit * 0.05),
        (x + wide * 0.62, foot + 2),
    ]
    yield [*curve(left, 8, closed=False), *curve(right, 8, closed=False)]
    for _ in range(dice.whole(1, 4)):
        share, side = dice.between(0.12, 0.6), dice.sign()
        y, start = foot * share, x + lean * (1 - share) + bend * 0.5
        reach, thin = wide * dice.between(3, 8), wide * dice.between(0.08, 0.16)
        end = (start + side * reach, y - reach * dice.between(0.25, 0.8))
        yield [
            (start, y + thin),
            (start + side * reach * 0.5, (y + end[1]) / 2 + thin * 1.3),
            end,
            (start + side * reach * 0.45, (y + end[1]) / 2 - thin * 0.2),
            (start, y - thin),
        ]


def _canopy(view: View, far: float) -> None:
    canvas, dice = view.canvas, view.dice
    rows = max(2, int(canvas.height * 0.62))
    cells = (7 * canvas.width / canvas.unit, 7 * rows / canvas.unit)
    leaves = noise.field(dice, canvas.width, rows, cells=cells, octaves=5, roughness=0.68)
    drop = canvas.y[:rows] / (canvas.height * (0.34 - 0.06 * far))
    mask = noise.ease(0.02, 0.14, leaves - 0.22 - drop * 0.62)
    canvas.lay(view.scheme.depth(0.1 + 0.75 * far), Stamp(mask * (0.9 - 0.35 * far)))


def _floor(view: View, foot: float, far: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    places = canvas.edge() / canvas.unit * 2.4 + dice.between(0, 30)
    edge = foot - canvas.unit * 0.02 * (1 + noise.line(dice, places, octaves=6, roughness=0.62))
    stamp = canvas.below(edge)
    down = ((canvas.y[stamp.top :] - foot) / (canvas.unit * 0.3)).clip(0, 1)[..., None]
    body, deep = (
        scheme.depth(0.12 + 0.7 * far),
        scheme.depth(0.7 * far).lit(scheme.depth(0.7 * far).lightness * 0.85),
    )
    canvas.lay(body.rgb + (deep.rgb - body.rgb) * down, stamp)


def _shafts(view: View, light: tuple[float, float]) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    if scheme.light.name in ("overcast", "storm"):
        return
    origin = (light[0], -canvas.height * 0.35)
    paths: list[Path] = []
    for _ in range(7):
        angle, wide = dice.between(-0.6, 0.6), dice.between(0.012, 0.045)
        far = canvas.height * 1.6
        paths.append(
            [
                origin,
                (origin[0] + far * math.sin(angle - wide), origin[1] + far * math.cos(angle)),
                (origin[0] + far * math.sin(angle + wide), origin[1] + far * math.cos(angle)),
            ]
        )
    stamp = canvas.outline(paths).softened(canvas.unit * 0.014)
    fade = np.zeros_like(stamp.mask) + noise.ease(
        1.15, 0.1, (np.arange(stamp.mask.shape[0]) + stamp.top)[:, None] / canvas.height
    )
    canvas.shine(scheme.glow, stamp.times(fade * (0.13 if scheme.light.night else 0.24)))


def _ground(view: View, ground: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    if view.brief.has("figure"):
        x = canvas.width * dice.between(0.35, 0.65)
        silhouettes.figure(view, x, ground + canvas.unit * 0.09, canvas.unit * 0.15, scheme.near)
    count = int(min(60, 9 * canvas.width / canvas.unit))
    for _ in range(count):
        at = (dice.between(-0.02, 1.02) * canvas.width, canvas.height * dice.between(0.97, 1.04))
        reach = canvas.unit * dice.between(0.09, 0.2)
        tone = mix(scheme.near, scheme.palette.base.lit(scheme.near.lightness * 1.25), dice.between(0, 0.8))
        fern(view, at, dice.between(-0.8, 0.8), reach, tone)

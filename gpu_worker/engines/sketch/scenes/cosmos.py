"""Space: nebulae, stars and planets."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, Field, mix, ramp
from gpu_worker.engines.sketch.scenes import silhouettes
from gpu_worker.engines.sketch.scenes.land import conifers, range_layer, range_line
from gpu_worker.engines.sketch.scenes.sky import Sun, stars
from gpu_worker.engines.sketch.scenes.view import View


def paint_cosmos(view: View) -> Iterator[float]:
    """A nebula, and before it a planet, sometimes a ridge with someone looking up."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    _nebula(view)
    yield 0.4
    stars(view, canvas.height * 1.0)
    yield 0.6
    ground = view.brief.has("figure", "house", "tree") or dice.chance(0.3)
    if not ground or dice.chance(0.6):
        _planets(view, high=ground)
    yield 0.8
    if ground:
        _lookout(view)
    elif dice.chance(0.4):
        _comet(view)
    canvas.shade(
        scheme.ink,
        Stamp(
            noise.ease(
                0.5, 1.05, np.hypot(canvas.x / canvas.width - 0.5, canvas.y / canvas.height - 0.5) * 1.4
            )
            * 0.4
        ),
    )
    yield 1.0


def _nebula(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    base, glow, accent = (
        colour.strong(1.35) for colour in (scheme.palette.base, scheme.palette.glow, scheme.palette.accent)
    )
    cells = (2.2 * canvas.width / canvas.unit, 2.2 * canvas.height / canvas.unit)
    first = noise.field(dice, canvas.width, canvas.height, cells=cells, octaves=6, roughness=0.55)
    second = noise.field(dice, canvas.width, canvas.height, cells=cells, octaves=5, roughness=0.5)
    tilt = dice.between(-0.7, 0.7)
    across = (canvas.y / canvas.height - 0.5) + (canvas.x / canvas.width - 0.5) * tilt
    band = np.exp(-(((across + (second - 0.5) * 0.5) / 0.27) ** 2))
    canvas.wash(ramp([base.lit(0.10), base.lit(0.17), base.lit(0.25)]), first * 0.8 + band * 0.2)
    cloud = noise.ease(0.25, 0.95, band * (0.45 + 0.75 * first))
    canvas.lay(mix(base, accent, 0.5).lit(0.42), Stamp(cloud * 0.85))
    canvas.shine(accent.lit(0.58), Stamp(noise.ease(0.38, 0.95, band * (0.35 + 0.85 * second)) * 0.7))
    canvas.shine(glow.lit(0.78), Stamp(noise.ease(0.5, 1.1, band * (first + second) * 0.82) * 0.8))
    dust = noise.ease(0.50, 0.30, first) * noise.ease(0.35, 0.7, second) * band
    canvas.shade(base.lit(0.16), Stamp(np.asarray(dust * 0.55, dtype=np.float32)))


def _planets(view: View, *, high: bool) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    x = canvas.width * dice.pick((0.3, 0.66)) + canvas.unit * dice.between(-0.08, 0.08)
    y = canvas.height * (dice.between(0.25, 0.4) if high else dice.between(0.38, 0.62))
    radius = canvas.unit * (dice.between(0.10, 0.15) if high else dice.between(0.17, 0.27))
    light = (dice.sign() * 0.72, -0.55)
    tone = dice.pick((scheme.palette.glow, scheme.palette.accent, scheme.palette.base)).strong(0.9)
    planet(view, x, y, radius, light, tone, ringed=dice.chance(0.45))
    moon = radius * dice.between(0.1, 0.2)
    planet(
        view,
        x - light[0] * radius * dice.between(1.5, 2.1),
        y - radius * dice.between(0.6, 1.2),
        moon,
        light,
        scheme.paper.lit(0.8),
        ringed=False,
    )


def planet(
    view: View, x: float, y: float, radius: float, light: tuple[float, float], tone: Colour, *, ringed: bool
) -> None:
    """A planet with bands, a night side and a thin air."""
    canvas = view.canvas
    canvas.shine(
        tone.lit(0.6),
        canvas.halo(x + light[0] * radius * 0.25, y + light[1] * radius * 0.25, radius * 1.12, 2.6).times(
            0.34
        ),
    )
    if ringed:
        _ring(view, x, y, radius, tone, front=False)
    _globe(view, x, y, radius, light, tone)
    if ringed:
        _ring(view, x, y, radius, tone, front=True)


def _globe(view: View, x: float, y: float, radius: float, light: tuple[float, float], tone: Colour) -> None:
    canvas, dice = view.canvas, view.dice
    stamp = canvas.disc(x, y, radius)
    rows, columns = stamp.mask.shape
    u = (canvas.x[:, stamp.left : stamp.left + columns] - x) / radius
    v = (canvas.y[stamp.top : stamp.top + rows] - y) / radius
    depth = np.sqrt((1 - u**2 - v**2).clip(0, 1))
    lit = noise.ease(-0.15, 0.85, u * light[0] + v * light[1] + depth * 0.42)
    texture = noise.field(dice, columns, rows, cells=(2.5, 9), octaves=5, roughness=0.55)
    bands = 0.5 + 0.5 * np.sin(v * 7 + u * 1.5 + (texture - 0.5) * 4.5)
    table = ramp(
        [
            tone.lit(0.09).strong(0.6),
            tone.lit(0.34),
            tone.lit(0.68),
            mix(tone, view.scheme.glow, 0.5).lit(0.92),
        ]
    )
    place = (lit * (0.72 + 0.28 * bands)).clip(0, 1)
    canvas.lay(table[(place * (len(table) - 1)).astype(np.intp)], stamp)
    rim = noise.ease(0.45, 0.0, depth) * lit
    canvas.shine(tone.lit(0.85), stamp.times(rim * 0.45))


def _ring(view: View, x: float, y: float, radius: float, tone: Colour, *, front: bool) -> None:
    canvas = view.canvas
    tilt, flat = -0.32, 0.24
    reach = radius * 2.2
    left, right = int(max(0, x - reach)), int(min(canvas.width, x + reach)) or 1
    top, bottom = int(max(0, y - reach)), int(min(canvas.height, y + reach)) or 1
    u, v = (canvas.x[:, left:right] - x) / radius, (canvas.y[top:bottom] - y) / radius
    a, b = u * np.cos(tilt) + v * np.sin(tilt), (-u * np.sin(tilt) + v * np.cos(tilt)) / flat
    away = np.sqrt(a**2 + b**2)
    mask = _bands(away) * noise.ease(1.25, 1.3, away) * noise.ease(2.05, 1.98, away)
    mask = mask * (b > 0 if front else b <= 0)
    canvas.lay(
        mix(tone, view.scheme.glow, 0.6).lit(0.82),
        Stamp(np.asarray(mask * 0.75, dtype=np.float32), left, top),
    )


def _bands(away: Field) -> Field:
    return np.asarray(0.55 + 0.45 * np.sin(away * 34) * np.sin(away * 13), dtype=np.float32)


def _lookout(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    sun = Sun(canvas.width / 2, 0, 1)
    for far, base in ((0.45, 0.84), (0.0, 0.93)):
        edge = canvas.height * base - canvas.unit * 0.13 * range_line(view, far, sharp=False)
        if far == 0.0 and not view.brief.has("figure"):
            edge = edge - conifers(view, edge, canvas.unit * 0.08)
        range_layer(view, edge, far, canvas.unit * 0.2, sun, rocky=False)
    if view.brief.has("figure") or dice.chance(0.4):
        crest = edge.reshape(canvas.width, -1).max(axis=1)
        x = canvas.width * dice.between(0.3, 0.7)
        silhouettes.figure(view, x, float(crest[int(x)]) + 1, canvas.unit * 0.09, scheme.near)


def _comet(view: View) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    x, y = canvas.width * dice.between(0.15, 0.85), canvas.height * dice.between(0.12, 0.35)
    length = canvas.unit * dice.between(0.2, 0.4)
    side = dice.sign()
    tail = [
        (x, y - canvas.unit * 0.003),
        (x + side * length, y - length * 0.42),
        (x, y + canvas.unit * 0.003),
    ]
    stamp = canvas.outline([tail])
    columns = stamp.mask.shape[1]
    away = np.abs(canvas.x[:, stamp.left : stamp.left + columns] - x) / length
    canvas.shine(scheme.glow, stamp.times((1 - away).clip(0, 1)))
    canvas.shine(scheme.glow, canvas.halo(x, y, canvas.unit * 0.008).times(0.9))

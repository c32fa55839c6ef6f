"""Mountains: ranges behind ranges, each paler than the one before it."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import RGB, Field, mix
from gpu_worker.engines.sketch.scenes import silhouettes
from gpu_worker.engines.sketch.scenes.sky import Sun, haze, paint_sky, weather
from gpu_worker.engines.sketch.scenes.view import View
from gpu_worker.engines.sketch.scenes.water import reflect


def paint_mountains(view: View) -> Iterator[float]:
    """Ranges in haze, with conifers in front and sometimes a lake."""
    canvas, dice = view.canvas, view.dice
    horizon = view.horizon(0.5, 0.66)
    sun = paint_sky(view, horizon)
    yield 0.3
    layers = dice.whole(4, 6)
    lake = dice.chance(0.4)
    floor = canvas.height * dice.between(0.8, 0.88) if lake else canvas.height * 1.0
    sharp = dice.chance(0.65)
    front = np.zeros(1, dtype=np.float32)
    for index in range(layers):
        far = 1 - index / (layers - 1)
        base = horizon + (floor - horizon) * (1 - far) ** 1.15 * 0.9
        rise = canvas.unit * (0.10 + 0.20 * far**0.7) * dice.between(0.8, 1.15)
        front = base - rise * range_line(view, far, sharp=sharp)
        if index == layers - 1 or (index == layers - 2 and dice.chance(0.6)):
            front = front - conifers(view, front, canvas.unit * (0.045 + 0.06 * (1 - far)))
        range_layer(view, front, far, rise, sun, rocky=sharp and far > 0.3)
        yield 0.3 + 0.4 * (index + 1) / layers
    if lake:
        reflect(view, floor, view.scheme.depth(0.5))
    else:
        _story(view, front)
    yield 0.85
    _air(view, horizon)
    yield 1.0


def range_line(view: View, far: float, *, sharp: bool) -> Field:
    """Heights of 0 to 1 along one range: peaks where `sharp`, hills where not."""
    canvas, dice = view.canvas, view.dice
    places = canvas.edge() / canvas.unit * dice.between(1.1, 1.9) + dice.between(0, 50)
    if not sharp:
        return np.asarray(0.5 + 0.5 * noise.line(dice, places, octaves=3, roughness=0.3))
    ridged = 1 - np.abs(noise.line(dice, places * 1.3, octaves=6, roughness=0.47))
    swell = 0.5 + 0.5 * noise.line(dice, places * 0.7, octaves=2)
    return np.asarray(ridged**1.5 * (0.45 + 0.55 * swell) * (0.7 + 0.3 * far) + 0.15 * swell)


def range_layer(view: View, edge: Field, far: float, rise: float, sun: Sun, *, rocky: bool) -> None:
    """One range: darker above, dissolving into haze below; rock faces lit from the sun's side."""
    canvas, scheme = view.canvas, view.scheme
    stamp = canvas.below(edge)
    crest = edge.reshape(canvas.width, -1).mean(axis=1)
    depth = ((canvas.y[stamp.top :] - crest) / (rise * 1.3 + 1)).clip(0, 1)
    body: RGB = scheme.depth(far).rgb
    if rocky:
        body = _rock(view, stamp, depth, sun, far)
    mist = mix(scheme.depth(min(1.0, far + 0.3)), scheme.horizon, 0.5).rgb
    share = (depth**1.3 * scheme.light.haze * (0.25 + 0.6 * far))[..., None]
    canvas.lay(body + (mist - body) * share, stamp)


def _rock(view: View, stamp: Stamp, depth: Field, sun: Sun, far: float) -> RGB:
    """Gullies that run down from the crest, lit from the sun's side, and snow where it would lie."""
    canvas, scheme, dice = view.canvas, view.scheme, view.dice
    rows = canvas.height - stamp.top
    cells = (11 * canvas.width / canvas.unit, 2.6 * rows / canvas.unit)
    face = noise.field(dice, canvas.width, rows, cells=cells, octaves=4, roughness=0.5)
    step = max(1, int(canvas.unit * 0.016)) * (1 if sun.x > canvas.width / 2 else -1)
    slope = noise.ease(-0.12, 0.16, face - np.roll(face, step, axis=1))
    body = scheme.depth(far)
    dark, lit = body.lit(body.lightness * 0.92), mix(body, scheme.glow, 0.16 + 0.08 * far)
    share = slope * (1 - 0.6 * depth)
    if view.brief.has("snow") or scheme.light.name in ("dawn", "day", "blue"):
        snow = noise.ease(0.42, 0.2, depth + (face - 0.5) * 0.55)
        white = mix(scheme.horizon, scheme.glow, 0.5).lit(min(0.97, body.lightness + 0.2)).strong(0.5).rgb
        covered = (snow * (0.5 + 0.5 * slope))[..., None]
        rock = dark.rgb + (lit.rgb - dark.rgb) * share[..., None]
        return np.asarray(rock + (white - rock) * covered)
    return np.asarray(dark.rgb + (lit.rgb - dark.rgb) * share[..., None])


def conifers(view: View, edge: Field, tall: float) -> Field:
    """What a row of firs adds to the height of an edge, in pixels."""
    canvas, dice = view.canvas, view.dice
    parts = len(edge) // canvas.width
    added = np.zeros_like(edge)
    places = canvas.edge(parts)
    density = noise.line(dice, places / canvas.unit * 2.2, octaves=2)
    x = -tall
    while x < canvas.width + tall:
        size = tall * dice.between(0.45, 1.15)
        start = int(np.clip((x - size * 0.3) * parts, 0, len(edge) - 1))
        end = int(np.clip((x + size * 0.3) * parts, start + 1, len(edge)))
        if density[(start + end) // 2] > dice.between(-0.7, 0.25):
            added[start:end] = np.maximum(added[start:end], _fir(places[start:end], x, size))
        x += size * dice.between(0.14, 0.4)
    return added


def _fir(places: Field, x: float, size: float) -> Field:
    away = np.abs(places - x) / (size * 0.24)
    tiers = np.abs(((1 - away) * 5.5) % 1 - 0.35) * 0.16
    return np.asarray(size * ((1 - away) - tiers * (away < 0.95)).clip(0, 1))


def _story(view: View, edge: Field) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    crest = edge.reshape(canvas.width, -1).max(axis=1)
    x = canvas.width * dice.between(0.2, 0.8)
    foot = float(crest[int(x)]) + canvas.unit * 0.01
    if view.brief.has("figure"):
        silhouettes.figure(view, x, foot, canvas.unit * 0.085, scheme.near)
    elif view.brief.has("house"):
        silhouettes.house(view, x, foot, canvas.unit * 0.1, scheme.depth(0.22))
    elif view.brief.has("tree"):
        silhouettes.tree(view, x, foot, canvas.unit * 0.3, scheme.near)


def _air(view: View, horizon: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    if view.brief.has("fog") or scheme.light.name == "mist":
        haze(view, horizon + canvas.unit * 0.16, canvas.unit * 0.13, 0.8)
    if view.brief.has("balloon"):
        for size in (0.06, 0.032):
            silhouettes.balloon(
                view,
                canvas.width * dice.between(0.15, 0.85),
                horizon * dice.between(0.25, 0.7),
                canvas.unit * size,
            )
    if view.brief.has("birds") or (not scheme.light.night and dice.chance(0.35)):
        at = (canvas.width * dice.between(0.25, 0.75), horizon * dice.between(0.3, 0.65))
        silhouettes.birds(view, *at, canvas.unit * 0.09, mix(scheme.near, scheme.sky, 0.25))
    weather(view)

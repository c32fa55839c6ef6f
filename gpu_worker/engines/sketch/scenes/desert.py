"""Dunes with a lit and a shadowed side, mesas on the horizon, travellers."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.colour import Colour, Field, mix
from gpu_worker.engines.sketch.scenes import silhouettes
from gpu_worker.engines.sketch.scenes.sky import paint_sky, weather
from gpu_worker.engines.sketch.scenes.view import View


def paint_desert(view: View) -> Iterator[float]:
    """Dunes with a lit and a shadowed side."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    horizon = view.horizon(0.5, 0.64)
    sun = paint_sky(view, horizon)
    yield 0.35
    if dice.chance(0.5):
        mesa = horizon + canvas.unit * 0.02 - _mesas(view) * canvas.unit * 0.13
        canvas.lay(mix(scheme.far, scheme.horizon, 0.25), canvas.below(mesa))
    layers = dice.whole(4, 5)
    side = 1 if sun.x < canvas.width / 2 else -1
    crest = np.zeros(canvas.width, dtype=np.float32)
    for index in range(layers):
        far = 1 - index / (layers - 1)
        base = horizon + (canvas.height - horizon) * (1 - far) ** 1.3 * 0.82
        rise = canvas.unit * (0.045 + 0.13 * (1 - far))
        crest = dune(view, base, rise, far, side)
        if index == layers - 2:
            _travellers(view, crest)
        yield 0.35 + 0.5 * (index + 1) / layers
    if view.brief.has("balloon"):
        silhouettes.balloon(view, canvas.width * dice.between(0.2, 0.8), horizon * 0.45, canvas.unit * 0.06)
    weather(view)
    yield 1.0


def dune(view: View, base: float, rise: float, far: float, side: int) -> Field:
    """One dune field; returns its crest, a height in pixels for each column."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    peaks = list(_peaks(view, far))
    edge = base - rise * _profile(canvas.edge() / canvas.unit, peaks)
    stamp = canvas.below(edge)
    crest = edge.reshape(canvas.width, -1).mean(axis=1)
    depth = (canvas.y[stamp.top :] - crest) / canvas.unit
    shadow = np.zeros_like(stamp.mask)
    for peak in peaks:
        shadow = np.maximum(
            shadow, _slip_face(view, peak, (canvas.y[stamp.top :] - base) / rise + 1, side, rise)
        )
    lit = mix(_sand(view, far), scheme.glow, 0.30 + 0.15 * far)
    dark = mix(_sand(view, far), scheme.near, 0.5 - 0.3 * far)
    bend = noise.line(dice, canvas.x[0] / canvas.unit * 6, octaves=3) * 5
    ripples = 0.5 + 0.5 * np.sin(depth * 260 * (0.4 + far) + bend)
    share = (shadow * 0.9 + 0.05 * ripples * (1 - far) + depth.clip(0, 1) * 0.45).clip(0, 1)[..., None]
    canvas.lay(lit.rgb + (dark.rgb - lit.rgb) * share, stamp)
    return np.asarray(crest)


def _peaks(view: View, far: float) -> Iterator[tuple[float, float, float]]:
    """Where dunes stand across, in units: place, half width, height of 0 to 1."""
    dice, wide = view.dice, view.canvas.width / view.canvas.unit
    x = dice.between(-0.1, 0.35)
    while x < wide + 0.2:
        half = dice.between(0.3, 0.6) * (1.2 - 0.4 * far)
        yield x, half, dice.between(0.55, 1.0)
        x += half * dice.between(1.1, 1.9)


def _profile(places: Field, peaks: list[tuple[float, float, float]]) -> Field:
    total = np.zeros_like(places)
    for x, half, high in peaks:
        away = np.abs(places - x) / half
        total = np.maximum(total, high * (1 - np.sqrt(away**2 + 0.004)).clip(0, 1) ** 1.25)
    return np.asarray(total + 0.12 * np.sin(places * 3), dtype=np.float32)


def _slip_face(view: View, peak: tuple[float, float, float], down: Field, side: int, rise: float) -> Field:
    """The shadowed face of one dune: on one side of a bent ridge that runs down from its peak."""
    canvas, dice = view.canvas, view.dice
    x, half, high = peak
    start = 1 - high
    along = (down - start).clip(0, 4)
    bend = dice.between(0.5, 1.3)
    ridge = x * canvas.unit - side * rise * (0.55 * along - 0.42 * np.sin(along * 2.6 * bend)) * dice.between(
        0.5, 1.1
    )
    away = (canvas.x - ridge) * side
    reach = half * canvas.unit * (0.62 + 0.3 * along)
    fade = np.exp(-((away.clip(0, None) / reach) ** 2)) * np.exp(-((along / 2.2) ** 2))
    return np.asarray((away + 0.5).clip(0, 1) * fade * (down > start - 0.2), dtype=np.float32)


def _sand(view: View, far: float) -> Colour:
    scheme = view.scheme
    warm = mix(scheme.palette.glow, scheme.palette.base, 0.25).strong(scheme.light.chroma * 0.8)
    level = scheme.near.lightness + (scheme.sky.lightness - scheme.near.lightness) * (0.62 + 0.25 * far)
    return mix(warm.lit(level), scheme.far, far * 0.45)


def _mesas(view: View) -> Field:
    canvas, dice = view.canvas, view.dice
    raw = noise.line(dice, canvas.edge() / canvas.unit * 2.3 + dice.between(0, 9), octaves=4, roughness=0.45)
    return np.asarray(noise.ease(0.05, 0.16, raw) * (0.7 + 0.3 * noise.ease(0.3, 0.36, raw)))


def _travellers(view: View, crest: Field) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    x = canvas.width * dice.between(0.15, 0.6)
    foot = float(crest[int(x)])
    if view.brief.has("camels"):
        silhouettes.camels(view, x, foot, canvas.unit * 0.05, scheme.near)
    elif view.brief.has("figure") or dice.chance(0.4):
        silhouettes.figure(view, x, foot + canvas.unit * 0.004, canvas.unit * 0.06, scheme.near)

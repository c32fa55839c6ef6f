"""The coast: open water, headlands, and perhaps a lighthouse or a sail."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.colour import Field, mix
from gpu_worker.engines.sketch.scenes import silhouettes
from gpu_worker.engines.sketch.scenes.sky import haze, paint_sky, weather
from gpu_worker.engines.sketch.scenes.view import View
from gpu_worker.engines.sketch.scenes.water import paint_sea


def paint_coast(view: View) -> Iterator[float]:
    """Sea and sky, with land at one side."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    horizon = view.horizon(0.46, 0.62)
    sun = paint_sky(view, horizon)
    yield 0.35
    islands = (
        horizon
        + canvas.unit * 0.004
        - headland(view, dice.between(0.05, 0.09), -dice.sign()) * canvas.unit * 0.09
    )
    canvas.lay(mix(scheme.far, scheme.middle, 0.3), canvas.below(islands))
    paint_sea(view, horizon, sun)
    yield 0.6
    side = -1 if sun.x > canvas.width / 2 else 1
    lit = view.brief.has("lighthouse")
    if lit or dice.chance(0.7):
        _cliffs(view, horizon, side, tower=lit or dice.chance(0.25))
    yield 0.8
    if view.brief.has("boat") or dice.chance(0.45):
        x = canvas.width * (0.5 - side * dice.between(0.05, 0.3))
        size = canvas.unit * dice.between(0.07, 0.13)
        silhouettes.boat(view, x, horizon + size * dice.between(0.3, 0.9), size, scheme.near)
    if view.brief.has("birds") or dice.chance(0.45):
        at = (canvas.width * (0.5 - side * 0.2), horizon * dice.between(0.3, 0.7))
        silhouettes.birds(view, *at, canvas.unit * 0.1, mix(scheme.near, scheme.sky, 0.2))
    if view.brief.has("fog") or scheme.light.name == "mist":
        haze(view, horizon, canvas.unit * 0.1, 0.8)
    weather(view)
    yield 1.0


def headland(view: View, reach: float, side: int) -> Field:
    """Heights of 0 to 1 that stand at one side of the picture and fall towards its middle."""
    canvas, dice = view.canvas, view.dice
    places = canvas.edge()
    inwards = (canvas.width - places if side > 0 else places) / (reach * 4 * canvas.unit + 1)
    rough = noise.line(dice, places / canvas.unit * 4 + dice.between(0, 30), octaves=5, roughness=0.5)
    return np.asarray(
        noise.ease(1.0, 0.1, inwards + rough * 0.22) * (0.8 + 0.25 * rough), dtype=np.float32
    ).clip(0, 1.2)


def _cliffs(view: View, horizon: float, side: int, *, tower: bool) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    reach = min(0.26 * canvas.width / canvas.unit, dice.between(0.1, 0.19))
    for far in (0.5, 0.12):
        foot = horizon + canvas.unit * (0.015 if far > 0.3 else 0.1)
        high = canvas.unit * (0.12 if far > 0.3 else 0.19) * dice.between(0.85, 1.2)
        heights = headland(view, reach * (1.25 if far > 0.3 else 0.8), side)
        stamp = canvas.below(foot - heights * high)
        shown = np.where(
            canvas.y[stamp.top :]
            < foot + (heights.reshape(canvas.width, -1).mean(axis=1) - 0.3) * canvas.unit * 0.03,
            1.0,
            0.0,
        )
        body = scheme.depth(far)
        light = mix(body, scheme.glow, 0.2).rgb
        cells = (14 * canvas.width / canvas.unit, 6 * canvas.height / canvas.unit)
        face = noise.field(dice, canvas.width, canvas.height - stamp.top, cells=cells, octaves=4)[..., None]
        canvas.lay(
            body.rgb + (light - body.rgb) * noise.ease(0.5, 0.9, face), stamp.times(shown.astype(np.float32))
        )
        if tower and far > 0.3:
            x = canvas.width / 2 + side * (canvas.width / 2 - canvas.unit * reach * 1.9)
            column = int(np.clip(x, 0, canvas.width - 1))
            top = float((foot - heights * high).reshape(canvas.width, -1).mean(axis=1)[column])
            silhouettes.lighthouse(
                view, x, min(top, foot) + canvas.unit * 0.012, canvas.unit * dice.between(0.2, 0.27)
            )

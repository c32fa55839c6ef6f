"""The sky and what is in it: light, clouds, stars, rain, snow."""

from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.view import View


@dataclass(frozen=True)
class Sun:
    """Where the light comes from, in pixels."""

    x: float
    y: float
    radius: float


def paint_sky(view: View, horizon: float) -> Sun:
    """The whole sky down to `horizon`, with its light; returns the sun (or moon)."""
    canvas, scheme = view.canvas, view.scheme
    canvas.wash(
        ramp([scheme.zenith, scheme.sky, scheme.horizon, scheme.horizon], [0, 0.5, 0.92, 1]),
        canvas.y / max(1.0, horizon),
    )
    sun = _place_sun(view, horizon)
    if scheme.light.night or view.brief.has("stars"):
        stars(view, horizon * 0.92)
    _glow(view, sun)
    if not scheme.light.night:
        _disc(view, sun)
    clouds(view, horizon, sun)
    if scheme.light.night:
        _disc(view, sun)
    return sun


def _place_sun(view: View, horizon: float) -> Sun:
    dice, canvas = view.dice, view.canvas
    third = dice.pick((0.28, 0.36, 0.5, 0.64, 0.72)) + dice.between(-0.05, 0.05)
    height = view.scheme.light.sun + dice.between(-0.06, 0.08)
    size = dice.between(0.035, 0.055) if view.scheme.light.night else dice.between(0.045, 0.085)
    radius = max(2.0, min(canvas.unit, horizon) * size)
    return Sun(third * canvas.width, max(radius * 1.6, horizon * (1 - height)), radius)


def _glow(view: View, sun: Sun) -> None:
    canvas, scheme = view.canvas, view.scheme
    reach = canvas.unit * (0.32 if scheme.light.night else 0.5)
    strength = 0.28 if scheme.light.night else 0.55 * scheme.light.warmth + 0.15
    canvas.lay(scheme.glow, canvas.halo(sun.x, sun.y, reach, 1.1).times(strength))
    canvas.shine(scheme.glow, canvas.halo(sun.x, sun.y, sun.radius * 2.2, 1.4).times(0.35))


def _disc(view: View, sun: Sun) -> None:
    if view.scheme.light.name in ("storm", "overcast"):
        return
    bright = view.scheme.glow.lit(0.97).strong(0.6)
    view.canvas.lay(bright, view.canvas.disc(sun.x, sun.y, sun.radius).times(0.95))


def clouds(view: View, horizon: float, sun: Sun) -> None:
    """Long soft clouds, lit from the side of the sun; more of them in bad weather."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    heavy = view.brief.has("clouds", "rain") or scheme.light.name in ("storm", "overcast")
    if not heavy and dice.chance(0.2):
        return
    rows = max(2, int(min(horizon, canvas.height)))
    aspect = canvas.width / rows
    stretch = dice.between(2.2, 4.0)
    cells = (max(1.5, 5 * aspect / stretch), 5.0)
    body = noise.field(dice, canvas.width, rows, cells=cells, octaves=6, roughness=0.52)
    threshold = (0.40 if heavy else 0.52) + dice.between(-0.04, 0.05)
    mask = noise.ease(threshold, threshold + 0.28, body)
    lit = noise.ease(threshold + 0.03, threshold + 0.34, np.roll(body, -max(1, rows // 60), axis=0))
    fade = noise.ease(1.0, 0.75, canvas.y[:rows] / horizon) * (
        0.62 + 0.38 * noise.ease(0, 0.25, canvas.y[:rows] / horizon)
    )
    distance = np.hypot(canvas.x - sun.x, canvas.y[:rows] - sun.y) / (canvas.unit * 0.9)
    shaded = mix(scheme.zenith, scheme.sky, 0.5).lit(scheme.zenith.lightness * (0.82 if heavy else 0.97)).rgb
    bright = mix(scheme.horizon, scheme.glow, 0.6).rgb
    share = ((1 - lit) * 0.5 + np.exp(-(distance**1.3)) * 0.75).clip(0, 1)[..., None]
    canvas.lay(shaded + (bright - shaded) * share, Stamp(mask * fade * (0.85 if heavy else 0.68)))


def stars(view: View, horizon: float) -> None:
    """Points of light of several sizes, fewer towards the horizon."""
    canvas, dice = view.canvas, view.dice
    colour = view.scheme.glow.lit(0.95).strong(0.35)
    count = int(min(420, 40 + 260 * canvas.width * horizon / canvas.unit**2))
    sky = np.zeros((canvas.height, canvas.width), dtype=np.float32)
    for _ in range(count):
        x, y = dice.between(0, canvas.width - 1), dice.between(0, 1) ** 1.5 * max(1.0, horizon - 1)
        sky[min(canvas.height - 1, int(y)), int(x)] = max(
            sky[min(canvas.height - 1, int(y)), int(x)], dice.between(0.15, 0.8)
        )
    canvas.shine(colour, Stamp(sky))
    for _ in range(max(3, count // 14)):
        x, y = dice.between(0, canvas.width), dice.between(0, 1) ** 1.3 * horizon
        size = max(0.7, canvas.unit * dice.between(0.0009, 0.0022))
        canvas.shine(colour, canvas.disc(x, y, size))
        canvas.shine(colour, canvas.halo(x, y, size * 3).times(0.3))


def haze(view: View, y: float, reach: float, strength: float, colour: Colour | None = None) -> None:
    """A band of mist around the height `y`, `reach` pixels up and down."""
    canvas = view.canvas
    band = np.exp(-(((canvas.y - y) / max(1.0, reach)) ** 2)) * strength
    drift = noise.field(
        view.dice, canvas.width, canvas.height, cells=(2.5 * canvas.width / canvas.unit, 4), octaves=3
    )
    canvas.lay(
        colour or view.scheme.horizon,
        Stamp(np.asarray(band * (0.55 + 0.75 * drift), dtype=np.float32).clip(0, 1)),
    )


def weather(view: View) -> None:
    """What falls or floats in front of everything."""
    if view.brief.has("rain") or view.scheme.light.name == "storm":
        _rain(view)
    if view.brief.has("snow"):
        _drops(view, view.scheme.glow.lit(0.97).strong(0.2), 170, (0.0012, 0.006), soft=1.0)
    if view.brief.has("fireflies"):
        _drops(view, view.scheme.glow.lit(0.9).strong(1.6), 46, (0.0015, 0.004), soft=4.0)
    if view.brief.has("leaves"):
        _drops(view, view.scheme.accent, 26, (0.003, 0.007), soft=0.0)


def _rain(view: View) -> None:
    canvas, dice = view.canvas, view.dice
    lean = dice.between(-0.25, 0.25)
    paths = []
    for _ in range(int(min(900, 150 * canvas.width * canvas.height / canvas.unit**2))):
        x, y = dice.between(-0.1, 1.1) * canvas.width, dice.between(-0.1, 1) * canvas.height
        length, wide = (
            canvas.unit * dice.between(0.02, 0.075),
            max(0.35, canvas.unit * dice.between(0.0004, 0.0011)),
        )
        paths.append(
            [(x, y), (x + wide, y), (x + wide + lean * length, y + length), (x + lean * length, y + length)]
        )
    canvas.shine(view.scheme.horizon.lit(0.8), canvas.outline(paths).times(0.22))


def _drops(view: View, colour: Colour, count: int, sizes: tuple[float, float], *, soft: float) -> None:
    canvas, dice = view.canvas, view.dice
    for _ in range(int(min(count * 4, count * max(1.0, canvas.width * canvas.height / canvas.unit**2)))):
        x, y = dice.between(0, canvas.width), dice.between(0, canvas.height)
        near = dice.between(0, 1) ** 3
        radius = max(0.6, canvas.unit * (sizes[0] + (sizes[1] - sizes[0]) * near))
        canvas.lay(colour, canvas.disc(x, y, radius).times(dice.between(0.4, 0.9)))
        if soft:
            canvas.shine(colour, canvas.halo(x, y, radius * (1 + soft)).times(0.35))

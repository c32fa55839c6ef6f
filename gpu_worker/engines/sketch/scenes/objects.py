"""Things on a table: bodies of revolution and spheres, shaded and casting soft shadows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Point
from gpu_worker.engines.sketch.colour import RGB, Colour, Field, mix, ramp
from gpu_worker.engines.sketch.scenes.outlines import curve, ellipse
from gpu_worker.engines.sketch.scenes.view import View


@dataclass(frozen=True)
class Profile:
    """Half widths from the foot (0) to the lip (1), in heights of the body."""

    steps: tuple[tuple[float, float], ...]
    open: bool = True  # shows a dark mouth


PROFILES: dict[str, Profile] = {
    "vase": Profile(
        ((0, 0.16), (0.12, 0.24), (0.35, 0.31), (0.6, 0.25), (0.82, 0.11), (0.93, 0.11), (1, 0.15))
    ),
    "jug": Profile(((0, 0.22), (0.2, 0.32), (0.45, 0.34), (0.7, 0.24), (0.86, 0.17), (1, 0.2))),
    "bottle": Profile(
        ((0, 0.15), (0.05, 0.165), (0.52, 0.165), (0.66, 0.11), (0.74, 0.055), (0.96, 0.052), (1, 0.064))
    ),
    "bowl": Profile(((0, 0.34), (0.08, 0.36), (0.3, 0.72), (0.62, 1.0), (1, 1.18))),
    "cup": Profile(((0, 0.34), (0.1, 0.42), (0.5, 0.52), (1, 0.54))),
    "jar": Profile(((0, 0.36), (0.06, 0.4), (0.66, 0.4), (0.78, 0.33), (0.82, 0.35), (1, 0.35)), open=False),
    "amphora": Profile(
        ((0, 0.09), (0.1, 0.13), (0.42, 0.3), (0.66, 0.28), (0.8, 0.11), (0.94, 0.09), (1, 0.13))
    ),
    "candle": Profile(((0, 0.14), (0.5, 0.14), (1, 0.14)), open=False),
    "pebble-vase": Profile(((0, 0.26), (0.15, 0.42), (0.42, 0.5), (0.7, 0.42), (0.9, 0.16), (1, 0.15))),
}


def cast(view: View, x: float, foot: float, wide: float, tall: float, side: int) -> None:
    """The shadow on the table: dark and sharp at the foot, long and soft away from the light."""
    canvas, ink = view.canvas, view.scheme.ink
    reach = tall * 0.75
    long = [
        (x - wide, foot - wide * 0.1),
        (x + wide, foot + wide * 0.16),
        (x + side * reach + wide * 0.8, foot + wide * 0.2),
        (x + side * reach, foot - wide * 0.35),
    ]
    canvas.shade(ink, canvas.outline([curve(long, 8)]).softened(canvas.unit * 0.022).times(0.34))
    canvas.shade(
        ink,
        canvas.outline([ellipse(x + side * wide * 0.12, foot, wide * 1.08, wide * 0.2)])
        .softened(canvas.unit * 0.007)
        .times(0.6),
    )


def turned(
    view: View, x: float, foot: float, tall: float, profile: Profile, colour: Colour, side: int
) -> None:
    """A body of revolution with its shadow; the light comes from the side that `side` points away from."""
    canvas = view.canvas
    heights = np.array([height for height, _ in profile.steps])
    widths = np.array([wide for _, wide in profile.steps])
    rows = np.linspace(0, 1, 60)
    smooth = _eased(rows, heights, widths) * tall
    lift = smooth[0] * 0.16
    cast(view, x, foot - lift * 0.3, float(smooth[0]), tall, side)
    right = [(x + wide, foot - lift - row * tall) for row, wide in zip(rows, smooth, strict=True)]
    left = [(2 * x - a, b) for a, b in reversed(right)]
    bottom = ellipse(x, foot - lift, float(smooth[0]), float(smooth[0]) * 0.16)
    stamp = canvas.outline([[*right, *left], bottom])
    level = (foot - lift - canvas.y[stamp.top : stamp.top + stamp.mask.shape[0], 0]) / tall
    half = np.maximum(_eased(level.clip(0, 1), heights, widths) * tall, 1.0)[:, None]
    across = (canvas.x[:, stamp.left : stamp.left + stamp.mask.shape[1]] - x) / half
    canvas.lay(_glazed(view, across * side, level[:, None], colour), stamp)
    if profile.open:
        _mouth(view, x, foot - lift - tall, float(smooth[-1]), colour, side)


def _eased(rows: Field, heights: Field, widths: Field) -> Field:
    """Widths between the steps, rounded by a moving mean over the body's height."""
    spread = np.linspace(-0.05, 0.05, 7)
    return np.asarray(
        np.mean([np.interp((rows + offset).clip(0, 1), heights, widths) for offset in spread], axis=0)
    )


def _glazed(view: View, across: Field, level: Field, colour: Colour) -> RGB:
    """Light that wraps around a body: -1 is the lit edge of `across`, 1 the far one."""
    scheme = view.scheme
    place = (0.62 - 0.52 * across - 0.22 * across**2 + 0.06 * level).clip(0, 1)
    place = place + 0.10 * np.exp(-(((across - 0.93) / 0.09) ** 2))  # light thrown back by the table
    table = _tones(view, colour)
    body = table[(place.clip(0, 1) * (len(table) - 1)).astype(np.intp)]
    shine = (
        np.exp(-(((across + 0.5) / 0.10) ** 2)) * noise.ease(0.2, 0.55, level) * noise.ease(0.95, 0.7, level)
    )[..., None]
    return np.asarray(body + (scheme.glow.lit(0.97).rgb - body) * shine * 0.34)


def _tones(view: View, colour: Colour) -> RGB:
    scheme = view.scheme
    dark = mix(colour, scheme.ink, 0.55).lit(colour.lightness * 0.42)
    return ramp(
        [
            dark,
            colour.lit(colour.lightness * 0.76),
            colour,
            mix(colour, scheme.glow, 0.5).lit(min(0.96, colour.lightness + 0.16)),
        ]
    )


def _mouth(view: View, x: float, y: float, wide: float, colour: Colour, side: int) -> None:
    canvas = view.canvas
    canvas.lay(
        mix(colour, view.scheme.glow, 0.3).lit(min(0.95, colour.lightness + 0.08)),
        canvas.outline([ellipse(x, y, wide, wide * 0.2)]),
    )
    stamp = canvas.outline([ellipse(x, y, wide * 0.88, wide * 0.155)])
    across = (canvas.x[:, stamp.left : stamp.left + stamp.mask.shape[1]] - x) / wide * side
    dark, pale = colour.lit(colour.lightness * 0.3), colour.lit(colour.lightness * 0.72)
    share = (0.5 + 0.5 * across).clip(0, 1)[..., None]
    canvas.lay(dark.rgb + (pale.rgb - dark.rgb) * share, stamp)


def ball(
    view: View, x: float, foot: float, radius: float, colour: Colour, side: int, *, fruit: bool = True
) -> None:
    """A sphere, or a fruit with its dimple and stalk."""
    canvas, scheme = view.canvas, view.scheme
    cast(view, x, foot - radius * 0.08, radius * 0.82, radius * 1.3, side)
    y = foot - radius
    stamp = canvas.disc(x, y, radius, 0.94 if fruit else 1.0)
    rows, columns = stamp.mask.shape
    u = (canvas.x[:, stamp.left : stamp.left + columns] - x) / radius * side
    v = (canvas.y[stamp.top : stamp.top + rows] - y) / radius
    depth = np.sqrt((1 - u**2 - v**2).clip(0, 1))
    place = (0.30 - 0.44 * u - 0.40 * v + 0.38 * depth).clip(0, 1) + 0.10 * noise.ease(
        0.5, 0.0, depth
    ) * noise.ease(0.1, 0.9, u + v)
    table = _tones(view, colour)
    body = table[(place.clip(0, 1) * (len(table) - 1)).astype(np.intp)]
    shine = np.exp(-(((u + 0.42) ** 2 + (v + 0.45) ** 2) / 0.035))[..., None]
    canvas.lay(body + (scheme.glow.lit(0.98).rgb - body) * shine * 0.42, stamp)
    if fruit:
        _stalk(view, x, y - radius * 0.78, radius, colour)


def _stalk(view: View, x: float, y: float, radius: float, colour: Colour) -> None:
    canvas = view.canvas
    dimple = canvas.outline([ellipse(x, y, radius * 0.22, radius * 0.07)]).softened(radius * 0.05)
    canvas.shade(colour.lit(0.25), dimple.times(0.6))
    stalk: Sequence[Point] = [
        (x - radius * 0.025, y),
        (x + radius * 0.05, y - radius * 0.3),
        (x + radius * 0.1, y - radius * 0.29),
        (x + radius * 0.035, y),
    ]
    canvas.lay(mix(view.scheme.ink, colour, 0.2), canvas.outline([stalk]))


def books(view: View, x: float, foot: float, wide: float, side: int, tones: Sequence[Colour]) -> float:
    """A lying stack of books; returns how high it is."""
    dice = view.dice
    cast(view, x, foot, wide * 0.5, wide * 0.5, side)
    y = foot
    for tone in tones:
        half, thick = wide / 2 * dice.between(0.82, 1.0), wide * dice.between(0.09, 0.15)
        _book(view, x + wide * dice.between(-0.05, 0.05), y, half, thick, side, tone)
        y -= thick
    return foot - y


def _book(view: View, x: float, foot: float, half: float, thick: float, side: int, tone: Colour) -> None:
    """One lying book: its cover, the pages at one end, a line of shadow underneath."""
    canvas, scheme = view.canvas, view.scheme

    def strip(left: float, right: float, low: float, high: float) -> list[Point]:
        return [(left, foot - low), (left, foot - high), (right, foot - high), (right, foot - low)]

    stamp = canvas.outline([strip(x - half, x + half, 0, thick)])
    across = (canvas.x[:, stamp.left : stamp.left + stamp.mask.shape[1]] - x) / half * side
    dark, pale = tone.lit(tone.lightness * 0.7), mix(tone, scheme.glow, 0.25)
    canvas.lay(pale.rgb + (dark.rgb - pale.rgb) * (0.5 + 0.5 * across).clip(0, 1)[..., None], stamp)
    pages = strip(x + side * half * 0.9, x + side * half, thick * 0.16, thick * 0.84)
    canvas.lay(scheme.paper.lit(0.82), canvas.outline([pages]).times(0.85))
    canvas.shade(scheme.ink, canvas.outline([strip(x - half, x + half, -1, thick * 0.07)]).times(0.35))

"""Leaves, fronds and flowers, drawn as a botanist would cut them from paper."""

import math
from collections.abc import Callable

import numpy as np

from gpu_worker.engines.sketch.canvas import Path, Point, Stamp
from gpu_worker.engines.sketch.colour import RGB, Colour, mix
from gpu_worker.engines.sketch.scenes.outlines import curve, ellipse
from gpu_worker.engines.sketch.scenes.view import View


def leaf(foot: Point, angle: float, length: float, wide: float, bend: float = 0.0) -> list[Point]:
    """A pointed leaf that grows from `foot` in direction `angle` (0 is up, clockwise, radians)."""
    left, right = [], []
    for step in range(15):
        t = step / 14
        half = wide * math.sin(math.pi * t**0.8) ** 0.9 if 0 < t < 1 else 0.0
        turn = angle + bend * t
        x, y = foot[0] + length * t * math.sin(turn), foot[1] - length * t * math.cos(turn)
        left.append((x - half * math.cos(turn), y - half * math.sin(turn)))
        right.append((x + half * math.cos(turn), y + half * math.sin(turn)))
    return [*left, *reversed(right)]


def stem(foot: Point, angle: float, length: float, bend: float, steps: int = 24) -> list[tuple[Point, float]]:
    """Points along a bent stem, each with the direction of growth there."""
    x, y = foot
    result = []
    for step in range(steps + 1):
        turn = angle + bend * step / steps
        result.append(((x, y), turn))
        x, y = x + length / steps * math.sin(turn), y - length / steps * math.cos(turn)
    return result


def line(points: list[tuple[Point, float]], thick: float) -> list[Point]:
    """The outline of a stem that thins out."""
    last = len(points) - 1
    sides: tuple[list[Point], list[Point]] = ([], [])
    for index, ((x, y), turn) in enumerate(points):
        half = thick * (1 - 0.75 * index / last) / 2
        sides[0].append((x - half * math.cos(turn), y - half * math.sin(turn)))
        sides[1].append((x + half * math.cos(turn), y + half * math.sin(turn)))
    return [*sides[0], *reversed(sides[1])]


def fern(view: View, foot: Point, angle: float, length: float, colour: Colour) -> None:
    """One frond of a fern, in one colour."""
    dice = view.dice
    spine = stem(foot, angle, length, dice.between(-0.7, 0.7), 13)
    paths: list[Path] = [line(spine, length * 0.018)]
    for index, (point, turn) in enumerate(spine[2:], 2):
        size = length * 0.36 * math.sin(math.pi * (0.2 + 0.8 * index / 13)) + length * 0.03
        paths.extend(leaf(point, turn + side * 0.95, size, length * 0.019, side * 0.4) for side in (-1, 1))
    view.canvas.lay(colour, view.canvas.outline(paths))


def sprig(view: View, foot: Point, angle: float, length: float, kind: str) -> tuple[list[Path], list[Path]]:
    """A stem with leaves: outlines of the leaves' one half and of everything."""
    dice = view.dice
    spine = stem(foot, angle, length, dice.between(-0.6, 0.6))
    whole: list[Path] = [line(spine, length * 0.016)]
    halves: list[Path] = []
    grow = _GROWTH[kind]
    pairs = {"willow": 13, "eucalyptus": 8, "laurel": 10, "palm": 17}[kind]
    for index in range(pairs):
        at = 0.14 + 0.84 * index / pairs
        point, turn = spine[int(at * (len(spine) - 1))]
        for side in (-1, 1):
            shape = grow(point, turn, side, length * dice.between(0.9, 1.1), at)
            whole.append(shape)
            halves.append([*shape[: len(shape) // 2], point])
    tip, turn = spine[-1]
    whole.append(leaf(tip, turn, length * 0.12, length * 0.026))
    return whole, halves


def _willow(point: Point, turn: float, side: int, length: float, at: float) -> list[Point]:
    return leaf(point, turn + side * 0.62, length * (0.3 - 0.14 * at), length * 0.02, side * 0.35)


def _eucalyptus(point: Point, turn: float, side: int, length: float, at: float) -> list[Point]:
    size = length * (0.10 - 0.055 * at)
    angle = turn + side * 1.15
    return ellipse(
        point[0] + size * math.sin(angle), point[1] - size * math.cos(angle), size * 0.78, size, angle, 28
    )


def _laurel(point: Point, turn: float, side: int, length: float, at: float) -> list[Point]:
    return leaf(
        point, turn + side * 0.85, length * (0.23 - 0.11 * at), length * (0.042 - 0.016 * at), -side * 0.2
    )


def _palm(point: Point, turn: float, side: int, length: float, at: float) -> list[Point]:
    reach = length * 0.42 * math.sin(math.pi * (0.22 + 0.74 * at))
    return leaf(point, turn + side * (1.1 - 0.5 * at), reach, length * 0.016, side * 0.45)


_GROWTH: dict[str, Callable[[Point, float, int, float, float], list[Point]]] = {
    "willow": _willow,
    "eucalyptus": _eucalyptus,
    "laurel": _laurel,
    "palm": _palm,
}


def flower(view: View, x: float, y: float, radius: float, colour: Colour, petals: int) -> None:
    """An open flower: petals in two rounds, each lighter towards its tip, and a heart."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    start = dice.between(0, 2 * math.pi)
    for ring, (size, tone) in enumerate(((1.0, 0.0), (0.72, 0.28))):
        shade = mix(colour, scheme.glow, tone)
        for index in range(petals):
            angle = start + 2 * math.pi * (index + 0.5 * ring) / petals + dice.between(-0.07, 0.07)
            stamp = canvas.outline([_petal((x, y), angle, radius * size * dice.between(0.92, 1.05), petals)])
            canvas.shade(scheme.ink, stamp.moved(0, radius * 0.025).softened(radius * 0.06).times(0.16))
            canvas.lay(_fading(view, stamp, (x, y), radius * size, shade), stamp)
    heart = canvas.disc(x, y, radius * 0.17)
    canvas.lay(mix(scheme.accent.turned(35), scheme.glow, 0.35).lit(0.72), heart)
    canvas.shade(
        scheme.near,
        canvas.disc(x + radius * 0.03, y + radius * 0.04, radius * 0.11).softened(radius * 0.04).times(0.4),
    )


def _petal(foot: Point, angle: float, length: float, petals: int) -> list[Point]:
    wide = length * min(0.42, 2.3 / petals)
    outline = [
        (0, 0.02),
        (-0.6, 0.45),
        (-0.85, 0.8),
        (-0.4, 1.0),
        (0, 0.95),
        (0.4, 1.0),
        (0.85, 0.8),
        (0.6, 0.45),
    ]
    cos, sin = math.cos(angle), math.sin(angle)
    return curve(
        [
            (foot[0] + a * wide * cos + b * length * sin, foot[1] + a * wide * sin - b * length * cos)
            for a, b in outline
        ],
        5,
    )


def _fading(view: View, stamp: Stamp, centre: Point, radius: float, colour: Colour) -> RGB:
    canvas = view.canvas
    rows, columns = stamp.mask.shape
    across = canvas.x[:, stamp.left : stamp.left + columns] - centre[0]
    down = canvas.y[stamp.top : stamp.top + rows] - centre[1]
    share = (np.sqrt(across**2 + down**2) / radius).clip(0, 1)[..., None]
    inner, outer = colour.lit(colour.lightness * 0.72).rgb, mix(colour, view.scheme.glow, 0.25).rgb
    return np.asarray(inner + (outer - inner) * share)

"""Outlines that shapes are cut from: ellipses, smooth curves, shapes in a unit box."""

import math
from collections.abc import Sequence

from gpu_worker.engines.sketch.canvas import Point


def ellipse(
    x: float, y: float, across: float, down: float, turn: float = 0.0, points: int = 40
) -> list[Point]:
    """The outline of an ellipse with the half-axes `across` and `down`, turned by `turn` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    result = []
    for index in range(points):
        angle = 2 * math.pi * index / points
        a, b = across * math.cos(angle), down * math.sin(angle)
        result.append((x + a * cos - b * sin, y + a * sin + b * cos))
    return result


def curve(points: Sequence[Point], steps: int = 8, *, closed: bool = True) -> list[Point]:
    """A smooth line through `points` (Catmull-Rom)."""
    count = len(points)
    result: list[Point] = []
    for index in range(count if closed else count - 1):
        if closed:
            p0, p1, p2, p3 = (points[(index + k) % count] for k in (-1, 0, 1, 2))
        else:
            p0, p1, p2, p3 = (points[min(max(index + k, 0), count - 1)] for k in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            result.append((_spline(p0[0], p1[0], p2[0], p3[0], t), _spline(p0[1], p1[1], p2[1], p3[1], t)))
    return result if closed else [*result, points[-1]]


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)


def placed(shape: Sequence[Point], x: float, foot: float, size: float) -> list[Point]:
    """A shape drawn in a unit box (0, 0 is its foot's middle, y up) set down on the picture."""
    return [(x + a * size, foot - b * size) for a, b in shape]

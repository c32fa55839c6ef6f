"""Small dark shapes that give a landscape its scale and its story."""

import math

from gpu_worker.engines.sketch.canvas import Path, Point
from gpu_worker.engines.sketch.colour import Colour, mix
from gpu_worker.engines.sketch.scenes.outlines import curve, ellipse, placed
from gpu_worker.engines.sketch.scenes.view import View


def lighthouse(view: View, x: float, foot: float, height: float) -> None:
    """A lighthouse with its beam; `height` in pixels."""
    canvas, scheme = view.canvas, view.scheme
    lamp = (x, foot - height * 0.9)
    if scheme.light.sky[1] < 0.7:
        _beams(view, lamp, height)

    def lay(colour: Colour, *shapes: list[Point]) -> None:
        canvas.lay(colour, canvas.outline([placed(shape, x, foot, height) for shape in shapes]))

    lay(mix(scheme.near, scheme.horizon, 0.5), _trapeze(0, 0.8))
    lay(mix(scheme.accent, scheme.near, 0.25), _trapeze(0.14, 0.3), _trapeze(0.46, 0.62))
    far_half: list[Point] = [(0.0, 0), (0.0, 0.8), (0.07, 0.8), (0.105, 0)]
    canvas.shade(scheme.near, canvas.outline([placed(far_half, x, foot, height)]).times(0.45))
    lay(
        scheme.near,
        [(-0.1, 0.8), (-0.1, 0.83), (0.1, 0.83), (0.1, 0.8)],
        [(-0.065, 0.95), (0, 1.05), (0.065, 0.95)],
    )
    lay(scheme.glow, [(-0.05, 0.83), (-0.05, 0.95), (0.05, 0.95), (0.05, 0.83)])
    canvas.shine(scheme.glow, canvas.halo(*lamp, height * 0.22).times(0.8))


def _trapeze(low: float, high: float) -> list[Point]:
    """The part of the tower between two heights; it grows thinner upwards."""
    below, above = (0.105 - 0.035 * share / 0.8 for share in (low, high))
    return [(-below, low), (-above, high), (above, high), (below, low)]


def _beams(view: View, lamp: Point, height: float) -> None:
    canvas, (x, y) = view.canvas, lamp
    for side, reach in ((-1, 7.0), (1, 5.5)):
        end = x + side * height * reach
        stamp = canvas.outline([[lamp, (end, y - height * 0.75), (end, y + height * 0.35)]])
        columns = canvas.x[:, stamp.left : stamp.left + stamp.mask.shape[1]]
        fade = (1 - abs(columns - x) / (height * reach)).clip(0, 1) ** 1.4
        canvas.shine(view.scheme.glow, stamp.times(0.42 * fade).softened(height * 0.03))


def house(view: View, x: float, foot: float, size: float, colour: Colour) -> None:
    """A small house with a lit window."""
    body = [(-0.5, 0), (-0.5, 0.45), (0.5, 0.45), (0.5, 0)]
    roof = [(-0.6, 0.42), (-0.35, 0.85), (0.35, 0.85), (0.6, 0.42)]
    chimney = [(0.18, 0.8), (0.18, 1.05), (0.3, 1.05), (0.3, 0.8)]
    canvas = view.canvas
    canvas.lay(colour, canvas.outline([placed(part, x, foot, size) for part in (body, roof, chimney)]))
    for left in (-0.3, 0.1):
        pane = [(left, 0.14), (left, 0.34), (left + 0.18, 0.34), (left + 0.18, 0.14)]
        canvas.lay(view.scheme.glow, canvas.outline([placed(pane, x, foot, size)]))
    canvas.shine(view.scheme.glow, canvas.halo(x, foot - size * 0.25, size * 0.45).times(0.3))


def boat(view: View, x: float, foot: float, size: float, colour: Colour) -> None:
    """A sailing boat."""
    canvas = view.canvas
    hull = [(-0.45, 0.1), (-0.3, -0.04), (0.32, -0.04), (0.5, 0.13)]
    main = [*curve([(0.02, 0.18), (0.05, 0.6), (0.02, 1.05)], closed=False), (0.42, 0.2)]
    fore = [(-0.02, 0.2), (-0.02, 0.9), (-0.36, 0.2)]
    sails = mix(view.scheme.glow, view.scheme.horizon, 0.3)
    canvas.lay(sails, canvas.outline([placed(part, x, foot, size) for part in (main, fore)]))
    canvas.lay(colour, canvas.outline([placed(hull, x, foot, size)]))
    mirror = [
        (x - size * 0.4, foot),
        (x + size * 0.42, foot),
        (x + size * 0.2, foot + size * 0.5),
        (x - size * 0.1, foot + size * 0.5),
    ]
    canvas.lay(sails, canvas.outline([mirror]).times(0.16).softened(size * 0.05))


def figure(view: View, x: float, foot: float, height: float, colour: Colour) -> None:
    """Somebody seen from afar, in a coat."""
    head = ellipse(0, 0.9, 0.085, 0.1)
    coat = curve(
        [
            (-0.06, 0.8),
            (-0.15, 0.7),
            (-0.19, 0.42),
            (-0.17, 0.26),
            (0.17, 0.26),
            (0.2, 0.45),
            (0.15, 0.7),
            (0.06, 0.8),
        ],
        4,
    )
    legs = [
        [(-0.11, 0.3), (-0.13, 0), (-0.05, 0), (0.0, 0.3)],
        [(0.01, 0.3), (0.05, 0), (0.13, 0), (0.12, 0.3)],
    ]
    view.canvas.lay(
        colour, view.canvas.outline([placed(part, x, foot, height) for part in (head, coat, *legs)])
    )


def tree(view: View, x: float, foot: float, height: float, colour: Colour) -> None:
    """A broad tree: a trunk and a crown of many round parts."""
    dice = view.dice
    parts: list[Path] = [
        placed([(-0.035, -0.02), (-0.02, 0.5), (0.02, 0.5), (0.045, -0.02)], x, foot, height)
    ]
    for _ in range(26):
        angle, reach = dice.between(0, 2 * math.pi), dice.between(0, 1) ** 0.5
        at = (0.36 * reach * math.cos(angle), 0.66 + 0.26 * reach * math.sin(angle))
        parts.append(
            placed(
                ellipse(*at, dice.between(0.06, 0.13), dice.between(0.05, 0.1), points=16), x, foot, height
            )
        )
    view.canvas.lay(colour, view.canvas.outline(parts))


def birds(view: View, x: float, y: float, spread: float, colour: Colour) -> None:
    """A loose flock."""
    dice = view.dice
    paths = []
    for _ in range(dice.whole(5, 9)):
        bx, by = x + dice.between(-1, 1) * spread, y + dice.between(-0.4, 0.4) * spread
        size, lift = spread * dice.between(0.05, 0.13), dice.between(0.25, 0.6)
        wings = [(-1.0, lift), (-0.5, lift * 0.9), (0, 0), (0.5, lift * 0.9), (1.0, lift)]
        under = [(0.5, lift * 0.62), (0, -0.22), (-0.5, lift * 0.62)]
        paths.append([(bx + a * size, by - b * size) for a, b in (*wings, *under)])
    view.canvas.lay(colour, view.canvas.outline(paths))


def balloon(view: View, x: float, y: float, radius: float) -> None:
    """A hot-air balloon."""
    canvas, scheme = view.canvas, view.scheme

    def around(shape: list[Point]) -> list[Point]:
        return [(x + a * radius, y + b * radius) for a, b in shape]

    bag = canvas.outline([around(curve(_BAG))])
    canvas.lay(scheme.accent, bag)
    canvas.lay(scheme.glow, canvas.outline([around(curve(_GORE))]).times(0.85))
    columns = canvas.x[:, bag.left : bag.left + bag.mask.shape[1]]
    canvas.shade(scheme.near, bag.times(((columns - x) / radius * 0.5 + 0.2).clip(0, 0.55)))
    ropes = [around([(side * 0.18, 1.25), (side * 0.22, 1.25), (side * 0.12, 1.6)]) for side in (-1, 1)]
    basket = around([(-0.16, 1.58), (0.16, 1.58), (0.12, 1.82), (-0.12, 1.82)])
    canvas.lay(scheme.near, canvas.outline([*ropes, basket]))


_BAG: list[Point] = [
    (0, -1), (0.72, -0.72), (1, 0), (0.7, 0.72), (0.2, 1.25), (-0.2, 1.25), (-0.7, 0.72), (-1, 0),
    (-0.72, -0.72),
]  # fmt: skip
_GORE: list[Point] = [
    (0, -1), (0.36, -0.6), (0.45, 0.1), (0.12, 1.25), (-0.12, 1.25), (-0.45, 0.1), (-0.36, -0.6),
]  # fmt: skip


def camels(view: View, x: float, foot: float, size: float, colour: Colour) -> None:
    """A caravan, one after another."""
    body = curve(
        [
            (-0.42, 0.5),
            (-0.3, 0.68),
            (-0.12, 0.72),
            (0.02, 0.95),
            (0.16, 0.72),
            (0.34, 0.66),
            (0.44, 0.8),
            (0.56, 1.06),
            (0.74, 1.04),
            (0.72, 0.96),
            (0.62, 0.93),
            (0.52, 0.58),
            (0.36, 0.44),
            (-0.1, 0.42),
        ],
        5,
    )
    legs = [[(a, 0.5), (a + 0.015, 0), (a + 0.06, 0), (a + 0.09, 0.5)] for a in (-0.4, -0.26, 0.18, 0.32)]
    for index in range(view.dice.whole(3, 5)):
        at = x + index * size * 1.55
        view.canvas.lay(colour, view.canvas.outline([placed(part, at, foot, size) for part in (body, *legs)]))

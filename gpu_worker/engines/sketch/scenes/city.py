"""A skyline: blocks behind blocks, lit windows, water or a wet street before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch.canvas import Path
from gpu_worker.engines.sketch.colour import mix
from gpu_worker.engines.sketch.scenes.sky import haze, paint_sky, weather
from gpu_worker.engines.sketch.scenes.view import View
from gpu_worker.engines.sketch.scenes.water import reflect


@dataclass(frozen=True)
class Block:
    """One building's box, in pixels."""

    left: float
    right: float
    top: float
    foot: float


def paint_city(view: View) -> Iterator[float]:
    """Three rows of buildings in haze, mirrored below."""
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    ground = view.horizon(0.70, 0.80)
    paint_sky(view, ground)
    yield 0.3
    rows = 4
    for index in range(rows):
        far = 1 - index / (rows - 1)
        _row(view, ground, far)
        haze(view, ground - canvas.unit * 0.03, canvas.unit * 0.11, 0.16 + 0.34 * far)
        yield 0.3 + 0.45 * (index + 1) / rows
    reflect(view, ground, scheme.near, ripple=1.6, clear=0.66)
    yield 0.85
    if scheme.light.sky[1] < 0.6 and dice.chance(0.5):
        _bokeh(view, ground)
    if view.brief.has("fog") or scheme.light.name == "mist":
        haze(view, ground, canvas.unit * 0.16, 0.7)
    weather(view)
    yield 1.0


def _row(view: View, ground: float, far: float) -> None:
    canvas, scheme = view.canvas, view.scheme
    blocks = list(_blocks(view, ground, far))
    body = scheme.depth(0.05 + 0.82 * far)
    canvas.lay(
        body, canvas.outline([outline for block in blocks for outline in _silhouette(view, block, far)])
    )
    _sides(view, blocks, far)
    if far < 0.95:
        _windows(view, blocks, far)


def _blocks(view: View, ground: float, far: float) -> Iterator[Block]:
    canvas, dice = view.canvas, view.dice
    centre, spread = dice.between(0.25, 0.75) * canvas.width, canvas.unit * dice.between(0.5, 0.9)
    x = -canvas.unit * dice.between(0.0, 0.1)
    while x < canvas.width:
        wide = canvas.unit * dice.between(0.05, 0.115) * (1.25 - 0.45 * far)
        crowd = np.exp(-(((x - centre) / spread) ** 2))
        tall = canvas.unit * (
            0.10 + 0.12 * far + (0.30 * crowd + 0.06) * dice.between(0.25, 1.0) * (0.55 + 0.6 * far)
        )
        yield Block(x, x + wide, ground - min(tall, ground * 0.86), ground + 2)
        x += wide * dice.between(0.92, 1.35 - 0.2 * far)


def _silhouette(view: View, block: Block, far: float) -> list[Path]:
    """A tower's outline: flat, slanted, or with something on its roof."""
    dice = view.dice
    left, right, top, foot = block.left, block.right, block.top, block.foot
    kind = dice.pick(("tank", "tank", "step", "slant", "mast", "crown"))
    if kind == "slant":
        drop = (right - left) * dice.between(0.2, 0.5)
        return [[(left, foot), (left, top), (right, top + drop), (right, foot)]]
    if kind == "crown" and far <= 0.2:
        kind = "tank"
    return [_tower(left, right, top, foot), _ROOFS[kind](view, block)]


def _tower(left: float, right: float, top: float, foot: float) -> Path:
    return [(left, foot), (left, top), (right, top), (right, foot)]


def _step(view: View, block: Block) -> Path:
    wide = block.right - block.left
    rise = wide * view.dice.between(0.15, 0.5)
    return _tower(block.left + wide * 0.2, block.right - wide * 0.2, block.top - rise, block.top + 1)


def _mast(view: View, block: Block) -> Path:
    middle, unit = (block.left + block.right) / 2, view.canvas.unit
    thin, tip = max(0.4, unit * 0.0016), block.top - unit * view.dice.between(0.03, 0.08)
    foot = block.top + 1
    return [(middle - thin, foot), (middle - thin / 3, tip), (middle + thin / 3, tip), (middle + thin, foot)]


def _crown(view: View, block: Block) -> Path:
    tip = block.top - (block.right - block.left) * view.dice.between(0.5, 1.1)
    return [(block.left, block.top + 1), ((block.left + block.right) / 2, tip), (block.right, block.top + 1)]


def _tank(view: View, block: Block) -> Path:
    wide = block.right - block.left
    left = block.left + wide * view.dice.between(0.15, 0.6)
    return _tower(left, left + wide * 0.2, block.top - wide * 0.14, block.top + 1)


_ROOFS: dict[str, Callable[[View, Block], Path]] = {
    "step": _step,
    "mast": _mast,
    "crown": _crown,
    "tank": _tank,
}


def _sides(view: View, blocks: list[Block], far: float) -> None:
    """The side away from the light, a little darker, so that boxes look like boxes."""
    canvas = view.canvas
    faces = [
        [
            (b.left + (b.right - b.left) * 0.62, b.foot),
            (b.left + (b.right - b.left) * 0.62, b.top),
            (b.right, b.top),
            (b.right, b.foot),
        ]
        for b in blocks
    ]
    canvas.shade(view.scheme.depth(0.0), canvas.outline(faces).times(0.13 + 0.1 * (1 - far)))


def _windows(view: View, blocks: list[Block], far: float) -> None:
    """Lit windows at night, dark ones by day, a few in another colour."""
    canvas, scheme = view.canvas, view.scheme
    dark = scheme.light.sky[1] < 0.62
    panes = [pane for block in blocks for pane in _panes(view, block, far, dark=dark)]
    split = [view.dice.chance(0.86) for _ in panes]
    lit = scheme.glow if dark else mix(scheme.depth(far), scheme.horizon, 0.55)
    other = scheme.accent.lit(0.74) if dark else mix(scheme.depth(far), scheme.zenith, 0.5)
    for colour, usual in ((lit, True), (other, False)):
        stamp = canvas.outline([pane for pane, kind in zip(panes, split, strict=True) if kind is usual])
        canvas.lay(colour, stamp.times(0.9 - 0.45 * far))
        if dark:
            canvas.shine(colour, stamp.softened(canvas.unit * 0.009).times(0.55))


def _panes(view: View, block: Block, far: float, *, dark: bool) -> Iterator[Path]:
    dice = view.dice
    size = view.canvas.unit * (0.0085 - 0.003 * far)
    busy = (0.46 if dark else 0.30) * (1 - 0.35 * far) * dice.between(0.35, 1.4)
    step_x, step_y = size * dice.pick((1.7, 2.0, 2.4)), size * dice.pick((1.7, 2.1, 2.8))
    wide, tall = step_x * dice.between(0.45, 0.62), step_y * 0.52
    rows = int(min(80, (block.foot - block.top - size * 2) / step_y))
    columns = int((block.right - block.left - size) / step_x)
    for row in range(rows):
        for column in range(columns):
            if dice.chance(busy):
                x, y = block.left + size + column * step_x, block.top + size * 1.4 + row * step_y
                yield _tower(x, x + wide, y, y + tall)


def _bokeh(view: View, ground: float) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    for _ in range(dice.whole(7, 14)):
        radius = canvas.unit * dice.between(0.012, 0.042)
        at = (dice.between(0, canvas.width), dice.between(ground * 0.97, canvas.height))
        colour = dice.pick((scheme.glow, scheme.accent, scheme.horizon))
        canvas.shine(colour, canvas.disc(*at, radius).times(dice.between(0.12, 0.34)).softened(radius * 0.08))

"""A geometric poster: a grid of quarter circles, arcs, dots and stripes in flat colours."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch.canvas import Canvas, Path, Point, Stamp
from gpu_worker.engines.sketch.colour import Colour, mix
from gpu_worker.engines.sketch.scenes.papercut import paper_grain
from gpu_worker.engines.sketch.scenes.view import View


@dataclass(frozen=True)
class Tile:
    """One cell of the grid: its square, in pixels, its colours, and the corner that its shape grows from."""

    canvas: Canvas
    x: float
    y: float
    size: float
    back: Colour
    front: Colour
    third: Colour
    corner: Point

    @property
    def opposite(self) -> Point:
        """The corner across from `corner`."""
        return 2 * self.x + self.size - self.corner[0], 2 * self.y + self.size - self.corner[1]

    @property
    def box(self) -> Stamp:
        """The mask of the whole cell."""
        return self.canvas.outline([self.strip(0, 1)])

    def strip(self, start: float, end: float) -> Path:
        """The part of the cell between two shares of its height."""
        top, foot = self.y + self.size * start, self.y + self.size * end
        return [(self.x, top), (self.x + self.size, top), (self.x + self.size, foot), (self.x, foot)]

    def cut(self, colour: Colour, *stamps: Stamp) -> None:
        """Lays colour where all the masks are, inside the cell."""
        _lay_common(self.canvas, colour, self.box, *stamps)


def paint_poster(view: View) -> Iterator[float]:
    """Tiles row by row; neighbours never repeat each other's colours."""
    canvas, dice = view.canvas, view.dice
    tones = _tones(view)
    canvas.rgb[:] = tones[-1].rgb
    across = max(1, round(canvas.width / canvas.unit * dice.pick((3, 4, 5))))
    size = canvas.width / across
    down = max(1, math.ceil(canvas.height / size))
    last = (-1, -1)
    for row in range(down):
        for column in range(across):
            last = _pair(view, len(tones), last)
            corner = ((column + dice.whole(0, 1)) * size, (row + dice.whole(0, 1)) * size)
            colours = tones[last[0]], tones[last[1]], tones[(last[1] + 2) % len(tones)]
            tile = Tile(canvas, column * size, row * size, size, *colours, corner)
            canvas.lay(tile.back, tile.box)
            dice.pick(_SHAPES)(tile)
        yield 0.05 + 0.85 * (row + 1) / down
    paper_grain(view, 0.06)
    yield 1.0


def _tones(view: View) -> list[Colour]:
    scheme, own = view.scheme, view.scheme.palette
    dark = scheme.light.sky[1] < 0.6
    ground = own.base.lit(0.2).strong(0.7) if dark else scheme.paper
    half = mix(own.base, scheme.paper, 0.55).lit(0.5 if dark else 0.76)
    return [own.flat(own.base, 0.36), own.flat(own.accent, 0.62), own.flat(own.glow, 0.8), half, ground]


def _pair(view: View, count: int, last: tuple[int, int]) -> tuple[int, int]:
    """Two different tones, not the two that came last."""
    back = view.dice.whole(0, count - 1)
    front = (back + view.dice.whole(1, count - 1)) % count
    if (back, front) == last:
        front = (back + 1 + (front - back) % (count - 1)) % count
    return back, front


def _quarter(tile: Tile) -> None:
    tile.cut(tile.front, tile.canvas.disc(*tile.corner, tile.size))
    tile.cut(tile.third, tile.canvas.disc(*tile.corner, tile.size * 0.5))


def _fan(tile: Tile) -> None:
    tile.cut(tile.front, tile.canvas.disc(*tile.corner, tile.size))


def _rings(tile: Tile) -> None:
    for index in range(4):
        tile.cut(
            (tile.front, tile.back)[index % 2], tile.canvas.disc(*tile.corner, tile.size * (1 - index / 4))
        )


def _half(tile: Tile) -> None:
    tile.cut(tile.front, tile.canvas.disc(tile.x + tile.size / 2, tile.corner[1], tile.size / 2))


def _dot(tile: Tile) -> None:
    centre = tile.x + tile.size / 2, tile.y + tile.size / 2
    tile.cut(tile.front, tile.canvas.disc(*centre, tile.size * 0.32))
    tile.cut(tile.third, tile.canvas.disc(*centre, tile.size * 0.13))


def _stripes(tile: Tile) -> None:
    tile.cut(tile.front, tile.canvas.outline([tile.strip(k / 6, (k + 1) / 6) for k in (0, 2, 4)]))


def _leaf(tile: Tile) -> None:
    first, second = (tile.canvas.disc(*corner, tile.size) for corner in (tile.corner, tile.opposite))
    tile.cut(tile.front, first, second)


def _triangle(tile: Tile) -> None:
    (x, y), (far_x, far_y) = tile.corner, tile.opposite
    tile.cut(tile.front, tile.canvas.outline([[(x, y), (far_x, y), (x, far_y)]]))


def _blank(tile: Tile) -> None:
    """A rest for the eye."""


_SHAPES: tuple[Callable[[Tile], None], ...] = (
    _quarter, _fan, _rings, _half, _dot, _stripes, _leaf, _triangle, _blank,
)  # fmt: skip


def _lay_common(canvas: Canvas, colour: Colour, *stamps: Stamp) -> None:
    left, top = max(stamp.left for stamp in stamps), max(stamp.top for stamp in stamps)
    right = min(stamp.left + stamp.mask.shape[1] for stamp in stamps)
    bottom = min(stamp.top + stamp.mask.shape[0] for stamp in stamps)
    if left >= right or top >= bottom:
        return
    mask = np.ones((bottom - top, right - left), dtype=np.float32)
    for stamp in stamps:
        part = stamp.mask[top - stamp.top : bottom - stamp.top, left - stamp.left : right - stamp.left]
        mask = np.asarray(mask * part, dtype=np.float32)
    canvas.lay(colour, Stamp(mask, left, top))

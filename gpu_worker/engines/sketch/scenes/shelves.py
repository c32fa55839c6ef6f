"""Bookshelves along a wall."""

from dataclasses import dataclass, field

from gpu_worker.engines.sketch.canvas import Path
from gpu_worker.engines.sketch.colour import Colour, mix
from gpu_worker.engines.sketch.scenes.still_life import tone
from gpu_worker.engines.sketch.scenes.view import View

Box = tuple[float, float, float, float]  # left, top, right, foot


@dataclass
class Row:
    """The spines on one board, by colour, and their shadowed edges."""

    spines: dict[int, list[Path]] = field(default_factory=dict)
    edges: list[Path] = field(default_factory=list)

    def add(self, colour: int, x: float, foot: float, wide: float, tall: float, lean: float) -> None:
        """Puts one book on the board."""
        right, dark = x + wide * 0.92, x + wide * 0.66
        head = foot - tall
        self.spines.setdefault(colour, []).append(
            [(x, foot), (x + lean, head), (right + lean, head), (right, foot)]
        )
        self.edges.append([(dark, foot), (dark + lean, head), (right + lean, head), (right, foot)])


def paint_shelves(view: View, window: Box, table: float) -> None:
    """Shelves on both sides of the window, as far as there is wall."""
    canvas, scheme = view.canvas, view.scheme
    gap, over = canvas.unit * 0.075, canvas.unit * 0.02
    wood = mix(scheme.near, scheme.palette.glow.lit(0.4), 0.25)
    for left, right in ((-over, window[0] - gap), (window[2] + gap, canvas.width + over)):
        if right - left > canvas.unit * 0.09:
            _case(view, (left, 0, right, table), wood)


def _case(view: View, box: Box, wood: Colour) -> None:
    canvas, scheme = view.canvas, view.scheme
    left, _, right, table = box
    case = canvas.outline([_rectangle(box)])
    canvas.shade(scheme.ink, case.softened(canvas.unit * 0.02).times(0.35))
    canvas.lay(wood.lit(wood.lightness * 0.62), case)
    rows = max(2, min(40, round(table / (canvas.unit * 0.155))))
    for row in range(rows):
        _board(view, (left, table * row / rows, right, table * (row + 1) / rows), wood)
    post = canvas.unit * 0.012
    posts = [_rectangle((x, 0, x + post, table)) for x in (left, right - post)]
    canvas.lay(wood, canvas.outline(posts))


def _board(view: View, box: Box, wood: Colour) -> None:
    canvas, scheme = view.canvas, view.scheme
    left, top, right, foot = box
    board = canvas.unit * 0.011
    own = scheme.palette
    tones = [
        tone(view, colour, level).strong(0.85)
        for colour in (own.base, own.glow, own.accent)
        for level in (0.42, 0.58)
    ]
    row = _fill(view, (left, top, right, foot - board), len(tones))
    for index, paths in row.spines.items():
        canvas.lay(tones[index], canvas.outline(paths))
    canvas.shade(scheme.ink, canvas.outline(row.edges).times(0.3))
    shade = canvas.outline([_rectangle((left, top, right, top + (foot - top) * 0.3))])
    canvas.shade(scheme.ink, shade.softened((foot - top) * 0.12).times(0.5))
    canvas.lay(wood, canvas.outline([_rectangle((left, foot - board, right, foot))]))


def _fill(view: View, box: Box, tones: int) -> Row:
    """Books from left to right, with a gap here and a leaning one there."""
    dice, unit = view.dice, view.canvas.unit
    left, top, right, foot = box
    row = Row()
    x = left + unit * 0.014
    while x < right - unit * 0.03:
        wide = unit * dice.between(0.011, 0.026)
        if dice.chance(0.07):
            x += wide * dice.between(1, 3)
            continue
        lean = wide * dice.between(0.3, 0.9) if dice.chance(0.06) else 0.0
        row.add(dice.whole(0, tones - 1), x, foot, wide, (foot - top) * dice.between(0.6, 0.86), lean)
        x += wide + lean
    return row


def _rectangle(box: Box) -> Path:
    left, top, right, foot = box
    return [(left, top), (right, top), (right, foot), (left, foot)]

"""Breaks a title into balanced lines and finds the size at which they fit."""

from dataclasses import dataclass

from gpu_worker.engines.sketch.lettering.clusters import pieces, soft_pieces
from gpu_worker.engines.sketch.lettering.fonts import FontStack
from gpu_worker.engines.sketch.lettering.shaping import Line, shape

LEADING = 1.16  # from baseline to baseline, in ems of the tallest line's height
_MAX_LINES = 9
_ELLIPSIS = "…"


@dataclass(frozen=True)
class Block:
    """Shaped lines and their size in pixels per em."""

    lines: tuple[Line, ...]
    size: float
    shortened: bool = False

    @property
    def pitch(self) -> float:
        """Pixels from baseline to baseline."""
        return self.size * LEADING * max(0.98, max(line.ascent + line.descent for line in self.lines) / 1.2)

    @property
    def width(self) -> float:
        """Pixels."""
        return max(line.width for line in self.lines) * self.size

    @property
    def height(self) -> float:
        """Pixels from the top of the first line to the foot of the last."""
        first, last = self.lines[0], self.lines[-1]
        return (len(self.lines) - 1) * self.pitch + (first.ascent * 0.82 + last.descent) * self.size


def fit(
    text: str, fonts: FontStack, *, width: float, height: float, largest: float, smallest: float
) -> Block:
    """As large as it goes into `width` x `height` pixels; shortened where `smallest` is too large."""
    parts = [(piece, shape(piece, fonts).width) for piece in pieces(text)]
    if max(length for _, length in parts) * smallest > width:
        parts = [(one, shape(one, fonts).width) for piece, _ in parts for one in soft_pieces(piece)]
    best = _largest(parts, fonts, width, height, largest)
    if best is not None and best.size >= smallest:
        return best
    return _shorten(parts, fonts, width, height, smallest)


def _largest(
    parts: list[tuple[str, float]], fonts: FontStack, width: float, height: float, largest: float
) -> Block | None:
    best: Block | None = None
    for count in range(1, min(_MAX_LINES, len(parts)) + 1):
        texts = balanced(parts, count)
        if len(texts) != count:
            continue
        lines = tuple(shape(text, fonts) for text in texts)
        block = _scaled(lines, width, height, largest)
        if best is None or block.size > best.size * 1.08:  # one more line must pay
            best = block
    return best


def _scaled(lines: tuple[Line, ...], width: float, height: float, largest: float) -> Block:
    unit = Block(lines, 1.0)
    return Block(lines, min(largest, width / max(unit.width, 1e-6), height / max(unit.height, 1e-6)))


def balanced(parts: list[tuple[str, float]], count: int) -> list[str]:
    """At most `count` lines whose longest is as short as can be."""
    low, high = max(length for _, length in parts), sum(length for _, length in parts)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if len(_filled(parts, middle)) <= count else (middle, high)
    return [line.strip() for line in _filled(parts, high)]


def _filled(parts: list[tuple[str, float]], limit: float) -> list[str]:
    lines: list[str] = []
    used = 0.0
    for text, length in parts:
        if lines and used + length <= limit * 1.0001:
            lines[-1] += text
            used += length
        else:
            lines.append(text)
            used = length
    return lines


def _shorten(
    parts: list[tuple[str, float]], fonts: FontStack, width: float, height: float, size: float
) -> Block:
    """As much as fits at the smallest size, and an ellipsis."""
    if fonts.cover(_ELLIPSIS) is None:
        return _shorten_with("", parts, fonts, width, height, size)
    return _shorten_with(_ELLIPSIS, parts, fonts, width, height, size)


def _shorten_with(
    end: str, parts: list[tuple[str, float]], fonts: FontStack, width: float, height: float, size: float
) -> Block:
    low, high = 1, len(parts)
    best = Block((shape(parts[0][0].strip() or end or "-", fonts),), size)
    best = _scaled(best.lines, width, height, size)
    while low <= high:
        middle = (low + high) // 2
        kept = [*parts[: middle - 1], (parts[middle - 1][0].rstrip() + end, parts[middle - 1][1] + 0.6)]
        lines = tuple(shape(line.strip(), fonts) for line in _filled(kept, width / size))
        block = Block(lines, size, shortened=True)
        if block.height <= height and block.width <= width * 1.001:
            best, low = block, middle + 1
        else:
            high = middle - 1
    return Block(best.lines, best.size, shortened=True)

"""Puts a title on a finished picture so that it can be read and looks as if it belonged there."""

from dataclasses import dataclass

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Canvas, Stamp
from gpu_worker.engines.sketch.colour import RGB, Colour, Field
from gpu_worker.engines.sketch.lettering import bidi
from gpu_worker.engines.sketch.lettering.clusters import clean
from gpu_worker.engines.sketch.lettering.fitting import Block, fit
from gpu_worker.engines.sketch.lettering.fonts import FontStack
from gpu_worker.engines.sketch.lettering.shaping import coverage, settable
from gpu_worker.engines.sketch.scenes.view import View

CONTRAST = 4.5  # WCAG AA, held even where the ground is least helpful
NOT_COVERED = "not set: no font covers it"
_MAX_CHARACTERS = 400  # nobody can read more on a picture

_CENTRED = {"mesh": 0.85, "poster": 0.8, "papercut": 0.25, "cosmos": 0.25}  # how often, by scene; else below


@dataclass(frozen=True)
class Place:
    """Where the title goes, in pixels, and how it is aligned: 0 left, 0.5 middle, 1 right."""

    left: float
    top: float
    width: float
    height: float
    align: float
    anchor: float  # 0 the top of the area, 0.5 its middle, 1 its foot


def set_title(view: View, title: str, fonts: FontStack) -> str | None:
    """Sets `title`; returns what became of it, in words for `made_with`, or None if it was blank."""
    wanted = clean(title)
    if not wanted:
        return None
    text = settable(_cut(wanted), fonts)
    if not text:
        return NOT_COVERED
    place = _place(view, rtl=bool(bidi.direction(text)))
    unit = view.canvas.unit
    smallest = max(7.0, unit * 0.036)
    largest = max(unit * (0.3 if _is_banner(view.canvas) else 0.135), min(14.0, unit * 0.2))
    block = fit(text, fonts, width=place.width, height=place.height, largest=largest, smallest=smallest)
    _draw(view, block, place)
    if text != _cut(wanted):
        return "set in part: no font covers the rest"
    return "set, shortened" if block.shortened or text != wanted else "set"


def _cut(text: str) -> str:
    """At most as many characters as anybody reads."""
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS].rstrip() + "…"


def _place(view: View, *, rtl: bool) -> Place:
    canvas, dice = view.canvas, view.dice
    margin = max(3.0, canvas.unit * 0.075)
    width, height = canvas.width - 2 * margin, canvas.height - 2 * margin
    centred = dice.chance(_CENTRED.get(view.brief.scene, 0.0))
    if _is_banner(canvas) or canvas.height < 140:
        return Place(margin, margin, width, height, 0.5 if centred else float(rtl), 0.5)
    if centred:
        tall = height * 0.6
        return Place(margin, (canvas.height - tall) / 2, width, tall, 0.5, 0.5)
    tall = min(height, canvas.unit * 0.55)
    wide = min(width, canvas.unit * 1.15)
    return Place(
        margin + (width - wide if rtl else 0), canvas.height - margin - tall, wide, tall, float(rtl), 1.0
    )


def _is_banner(canvas: Canvas) -> bool:
    return canvas.height < canvas.width * 0.4


def _draw(view: View, block: Block, place: Place) -> None:
    canvas = view.canvas
    top = place.top + (place.height - block.height) * place.anchor
    mask = _mask(canvas, block, place, top)
    box = _box(canvas, block, place, top)
    text, veil, strength = _ink(view, canvas.rgb[box])
    shadow = Stamp(mask).softened(max(1.0, block.size * 0.09))
    canvas.lay(veil, Stamp(_scrim(canvas, box, place) * np.float32(strength)))
    canvas.lay(veil, shadow.times(0.4))
    canvas.lay(text, Stamp(mask))
    if place.anchor == 1.0 and block.size > 9:
        _rule(view, place, top - block.size * 0.62, block.size)


def _mask(canvas: Canvas, block: Block, place: Place, top: float) -> Field:
    mask = np.zeros((canvas.height, canvas.width), dtype=np.float32)
    baseline = top + block.lines[0].ascent * 0.82 * block.size
    for index, line in enumerate(block.lines):
        x = place.left + (place.width - line.width * block.size) * place.align
        y = baseline + index * block.pitch
        mask = np.maximum(mask, coverage(line, block.size, canvas.width, canvas.height, x, y))
    return mask


def _box(canvas: Canvas, block: Block, place: Place, top: float) -> tuple[slice, slice]:
    left = place.left + (place.width - block.width) * place.align
    rows = slice(max(0, int(top)), max(1, min(canvas.height, int(top + block.height) + 1)))
    return rows, slice(max(0, int(left)), max(1, min(canvas.width, int(left + block.width) + 1)))


def _ink(view: View, ground: RGB) -> tuple[Colour, Colour, float]:
    """Colour of the letters, colour of the veil behind them, and how strong it must be. Light letters unless
    dark ones need much less of a veil."""
    scheme = view.scheme
    light, night = scheme.paper.lit(0.985), scheme.ink.lit(0.13)
    dark, day = scheme.ink.lit(0.19), scheme.paper.lit(0.97)
    for_light, for_dark = _strength(ground, night, light), _strength(ground, day, dark)
    if for_dark < for_light - 0.25:
        return dark, day, for_dark
    return light, night, for_light


def _strength(ground: RGB, veil: Colour, text: Colour) -> float:
    return next(
        (float(step) for step in np.arange(0.14, 0.95, 0.04) if _readable(ground, veil, text, float(step))),
        0.95,
    )


def _scrim(canvas: Canvas, box: tuple[slice, slice], place: Place) -> Field:
    """Where the veil lies: 1 behind the letters; it fades upwards, or all around a centred title."""
    rows, columns = box
    reach = max(8.0, (rows.stop - rows.start) * 0.75)
    if place.anchor == 1.0:
        return noise.ease(rows.start - reach * 1.3, float(rows.start), canvas.y) * np.ones_like(canvas.x)
    down = np.abs(canvas.y - (rows.start + rows.stop) / 2) - (rows.stop - rows.start) / 2
    across = np.abs(canvas.x - (columns.start + columns.stop) / 2) - (columns.stop - columns.start) / 2
    away = np.hypot(down.clip(0, None), across.clip(0, None)) / (canvas.unit * 0.5)
    return np.asarray(1 - 0.45 * noise.ease(0.0, 1.0, away), dtype=np.float32)


def _readable(ground: RGB, veil: Colour, text: Colour, strength: float) -> bool:
    under = _luminance(ground + (veil.rgb - ground) * strength)
    letters = float(_luminance(text.rgb))
    worst = float(np.percentile(under, 98 if letters > 0.5 else 2))
    bright, dark = max(letters, worst), min(letters, worst)
    return (bright + 0.05) / (dark + 0.05) >= CONTRAST


def _luminance(rgb: RGB) -> Field:
    """WCAG's relative luminance."""
    clipped = rgb.clip(0, 1)
    linear = np.where(clipped <= 0.04045, clipped / 12.92, ((clipped + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32))


def _rule(view: View, place: Place, y: float, size: float) -> None:
    """A short bar of the accent colour over the title."""
    canvas = view.canvas
    long, thick = size * 0.95, max(1.5, size * 0.09)
    left = place.left + (place.width - long) * place.align
    bar = [(left, y), (left + long, y), (left + long, y + thick), (left, y + thick)]
    accent = view.scheme.palette.accent
    canvas.lay(accent.lit(0.7).strong(1.1), canvas.outline([bar]))

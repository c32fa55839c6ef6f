"""Text to glyphs: which font writes what, in which order, how wide."""

import unicodedata
from dataclasses import dataclass

import numpy as np
import uharfbuzz as hb  # type: ignore[import-untyped]

from gpu_worker.engines.sketch.colour import Field
from gpu_worker.engines.sketch.lettering import bidi
from gpu_worker.engines.sketch.lettering.clusters import clusters
from gpu_worker.engines.sketch.lettering.fonts import FontStack, Typeface, invisible


@dataclass(frozen=True)
class Glyph:
    """One glyph at its place on the line, in ems from the line's left end and baseline (y up)."""

    typeface: Typeface
    index: int
    x: float
    y: float


@dataclass(frozen=True)
class Line:
    """A shaped line; all measures in ems."""

    glyphs: tuple[Glyph, ...]
    width: float
    ascent: float
    descent: float


def settable(text: str, fonts: FontStack) -> str:
    """The part of `text` that some font covers; whole clusters go, never half of one."""
    kept = [
        cluster for cluster in clusters(text) if cluster == " " or fonts.cover(_visible(cluster)) is not None
    ]
    return " ".join("".join(kept).split())


def _visible(cluster: str) -> str:
    return "".join(char for char in cluster if not invisible(char)) or cluster


def shape(text: str, fonts: FontStack) -> Line:
    """Shapes one line of covered text."""
    level = bidi.levels(text, bidi.direction(text))
    glyphs: list[Glyph] = []
    pen = ascent = descent = 0.0
    for start, end, run_level in bidi.visual_runs(level):
        runs = _by_font(text[start:end], fonts)
        for part, typeface in reversed(runs) if run_level % 2 else runs:
            pen = _shape_run(part, typeface, rtl=bool(run_level % 2), pen=pen, into=glyphs)
            if not ascent or not _common(part):  # a symbol among words doesn't push the lines apart
                up, down = _extents(typeface)
                ascent, descent = max(ascent, up), max(descent, down)
    return Line(tuple(glyphs), pen, ascent, descent)


def _by_font(text: str, fonts: FontStack) -> list[tuple[str, Typeface]]:
    """Stretches of one font and one script; spaces and marks of no script go with what precedes them."""
    runs: list[tuple[str, Typeface]] = []
    for cluster in clusters(text):
        before = runs[-1][1] if runs else None
        typeface = fonts.cover(_visible(cluster), before if _common(cluster) else None) or before
        if typeface is None:
            continue
        if (
            runs
            and typeface is before
            and (_common(cluster) or _common(runs[-1][0]) or _script(cluster) == _script(runs[-1][0]))
        ):
            runs[-1] = (runs[-1][0] + cluster, typeface)
        else:
            runs.append((cluster, typeface))
    return runs


def _common(text: str) -> bool:
    return not any(char.isalpha() for char in text)


def _script(text: str) -> str:
    """A word for the script of the first letter; enough to keep scripts apart."""
    first = next((char for char in text if char.isalpha()), "")
    return unicodedata.name(first, "").split(" ")[0] if first else ""


def _shape_run(text: str, typeface: Typeface, *, rtl: bool, pen: float, into: list[Glyph]) -> float:
    buffer = hb.Buffer()
    buffer.add_str(text)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if rtl else "ltr"
    hb.shape(typeface.font, buffer, {"kern": True, "liga": True})
    em = float(typeface.face.upem)
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        if info.codepoint:  # 0 would be the box for a missing glyph
            into.append(Glyph(typeface, info.codepoint, pen + position.x_offset / em, position.y_offset / em))
            pen += position.x_advance / em
    return pen


def _extents(typeface: Typeface) -> tuple[float, float]:
    extents = typeface.font.get_font_extents("ltr")
    em = float(typeface.face.upem)
    return min(1.3, extents.ascender / em), min(0.7, -extents.descender / em)


def coverage(line: Line, size: float, width: int, height: int, x: float, baseline: float) -> Field:
    """The line as a mask (height, width) of 0 to 1: `size` pixels per em, from `x` on `baseline`."""
    mask = np.zeros((height, width), dtype=np.float32)
    for glyph in line.glyphs:
        _stamp(mask, glyph, size, x, baseline)
    return mask


def _stamp(mask: Field, glyph: Glyph, size: float, x: float, baseline: float) -> None:
    em = float(glyph.typeface.face.upem)
    scale = size / em
    origin = (x + glyph.x * size, baseline - glyph.y * size)
    left, top = int(np.floor(origin[0])), int(np.floor(origin[1]))
    pen = hb.RasterDraw()
    pen.transform = (scale, 0.0, 0.0, scale, origin[0] - left, top - origin[1])
    pen.draw_glyph(glyph.typeface.font, glyph.index)
    image = pen.render()
    if image is None:
        return
    _add(mask, image, left, top)


def _add(mask: Field, image: hb.RasterImage, left: int, top: int) -> None:
    extents = image.extents
    if not extents.width or not extents.height:
        return
    pixels = np.frombuffer(image.buffer, dtype=np.uint8).reshape(extents.height, -1)[:, : extents.width]
    rows = pixels[::-1].astype(np.float32) / 255  # HarfBuzz counts rows upwards
    x, y = left + extents.x_origin, top - extents.y_origin - extents.height
    x0, y0, x1, y1 = (
        max(0, x),
        max(0, y),
        min(mask.shape[1], x + extents.width),
        min(mask.shape[0], y + extents.height),
    )
    if x0 < x1 and y0 < y1:
        part = mask[y0:y1, x0:x1]
        np.maximum(part, rows[y0 - y : y1 - y, x0 - x : x1 - x], out=part)

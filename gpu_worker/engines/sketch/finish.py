"""The medium: what the finished picture is made with, from film grain to watercolour paper."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Field, mix
from gpu_worker.engines.sketch.scenes.view import View

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def finish(view: View) -> None:
    """Gives the picture its surface."""
    MEDIUMS[view.brief.medium](view)


def _clean(view: View) -> None:
    _grain(view, 0.012)


def _photo(view: View) -> None:
    """Bloom around the lights, darker corners, film grain."""
    canvas = view.canvas
    image = canvas.image()
    step = max(1, int(canvas.unit / 160))
    small = image.reduce(step).filter(ImageFilter.GaussianBlur(canvas.unit * 0.02 / step))
    soft = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
    canvas.rgb += (1 - canvas.rgb) * (soft**2) * 0.16
    _vignette(view, 0.3)
    _grain(view, 0.024)


def _paint(view: View) -> None:
    """Edges that a brush has drawn, strokes that catch the light."""
    _wobble(view, 0.0016, 0.017)
    canvas = view.canvas
    strokes = _strokes(view)
    canvas.rgb *= 1 + (strokes[..., None] - 0.5) * 0.10
    _vignette(view, 0.14)
    _grain(view, 0.012)


def _strokes(view: View) -> Field:
    """Bristle marks of 0 to 1: long across, short down, a little bent."""
    canvas, dice = view.canvas, view.dice
    wide, tall = canvas.width / canvas.unit, canvas.height / canvas.unit
    coarse = noise.field(dice, canvas.width, canvas.height, cells=(13 * wide, 60 * tall), octaves=2)
    fine = noise.field(dice, canvas.width, canvas.height, cells=(34 * wide, 190 * tall), octaves=2)
    return np.asarray(0.5 * coarse + 0.5 * fine, dtype=np.float32)


def _watercolour(view: View) -> None:
    """Pigment that pools and thins, on rough paper, with a white border that the wash did not reach."""
    _wobble(view, 0.0035, 0.03)
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    wide, tall = canvas.width / canvas.unit, canvas.height / canvas.unit
    pool = noise.field(
        dice, canvas.width, canvas.height, cells=(4 * wide, 4 * tall), octaves=5, roughness=0.6
    )
    paper = scheme.paper.lit(0.97).strong(0.6).rgb
    canvas.rgb += (paper - canvas.rgb) * (0.07 + 0.20 * noise.ease(0.25, 1.0, pool))[..., None]
    edges = _edges(view, 0.004)
    canvas.shade(mix(scheme.near, scheme.middle, 0.5), Stamp(edges * 0.35))
    fibre = noise.field(dice, canvas.width, canvas.height, cells=(150 * wide, 150 * tall), octaves=2)
    canvas.rgb *= (1 - 0.07 * fibre)[..., None]
    _border(view, pool)


def _border(view: View, rough: Field) -> None:
    canvas = view.canvas
    width = canvas.unit * 0.055
    inwards = np.minimum(
        np.minimum(canvas.x, canvas.width - canvas.x), np.minimum(canvas.y, canvas.height - canvas.y)
    )
    mask = noise.ease(1.0, 0.93, inwards / width + (rough - 0.5) * 0.55)
    rim = np.exp(-(((inwards / width + (rough - 0.5) * 0.55 - 1.02) / 0.05) ** 2)) * 0.22
    canvas.shade(view.scheme.middle, Stamp(np.asarray(rim, dtype=np.float32)))
    canvas.lay(view.scheme.paper.lit(0.965), Stamp(mask))


def _ink(view: View) -> None:
    """Pen lines over a pale wash, on paper."""
    _wobble(view, 0.0013, 0.024)
    canvas, scheme = view.canvas, view.scheme
    lines = noise.ease(0.12, 0.42, _edges(view, 0.0016, dark=True))
    luma = canvas.rgb @ _LUMA
    hatch = _hatching(view, luma)
    paper = scheme.paper.lit(0.955).rgb
    canvas.rgb[:] = paper + (canvas.rgb - paper) * 0.42
    canvas.lay(scheme.ink.lit(0.24), Stamp(np.maximum(lines, hatch).clip(0, 1) * 0.9))
    _grain(view, 0.014)


def _hatching(view: View, luma: Field) -> Field:
    """Parallel strokes where it is dark, crossed where it is darker."""
    canvas = view.canvas
    pitch = max(3.5, canvas.unit * 0.0075)
    shift = noise.field(view.dice, canvas.width, canvas.height, cells=(3, 3), octaves=1) * pitch * 1.2
    total = np.zeros_like(luma)
    for slope, limit in ((1.0, 0.46), (-1.0, 0.27)):
        wave = np.abs(((canvas.x * slope + canvas.y + shift) / pitch) % 1 - 0.5) * 2
        depth = ((limit - luma) / 0.22).clip(0, 1)
        total = np.maximum(total, noise.ease(0.0, 0.22, wave - (1 - 0.36 * depth)) * (depth > 0.02) * 0.7)
    return np.asarray(total, dtype=np.float32)


def _print(view: View) -> None:
    """A few flat inks, a little out of register, with a fine screen in the half tones."""
    canvas, scheme = view.canvas, view.scheme
    levels = 7.0
    pitch = max(3.0, canvas.unit * 0.006)
    screen = 0.5 + 0.25 * (
        np.sin((canvas.x + canvas.y) * np.pi / pitch) + np.sin((canvas.x - canvas.y) * np.pi / pitch)
    )
    luma = (canvas.rgb.clip(0, 1) @ _LUMA).clip(0.01, 1)
    canvas.rgb *= ((np.floor(luma * levels + 0.5 + 0.8 * (screen - 0.5)) + 0.15) / levels / luma).clip(
        0.4, 2
    )[..., None]
    shift = max(1, round(canvas.unit * 0.0022))
    canvas.rgb[..., 0] = np.roll(canvas.rgb[..., 0], shift, axis=1)
    canvas.rgb[..., 2] = np.roll(canvas.rgb[..., 2], -shift, axis=0)
    paper = scheme.paper.lit(0.95).rgb
    canvas.rgb[:] = canvas.rgb * (0.10 + 0.90 * paper) + 0.03 * paper
    _grain(view, 0.03)


MEDIUMS: dict[str, Callable[[View], None]] = {
    "clean": _clean,
    "photo": _photo,
    "paint": _paint,
    "watercolour": _watercolour,
    "ink": _ink,
    "print": _print,
}


def _grain(view: View, strength: float) -> None:
    """Grain, strongest in the half tones; it also keeps long gradients from banding."""
    canvas = view.canvas
    canvas.rgb += noise.grain(view.dice, canvas.width, canvas.height) * strength


def _vignette(view: View, strength: float) -> None:
    canvas = view.canvas
    away = np.hypot(canvas.x / canvas.width - 0.5, canvas.y / canvas.height - 0.5) * 1.414
    canvas.rgb *= (1 - strength * noise.ease(0.45, 1.05, away))[..., None]


def _edges(view: View, reach: float, *, dark: bool = False) -> Field:
    """Where colours meet, 0 to 1; with `dark` only the darker side, which makes a thin line."""
    canvas = view.canvas
    grey = Image.fromarray((canvas.rgb.clip(0, 1) @ _LUMA * 255).astype(np.uint8))
    radius = max(0.6, canvas.unit * reach)
    inner = np.asarray(grey.filter(ImageFilter.GaussianBlur(radius * 0.6)), dtype=np.float32)
    outer = np.asarray(grey.filter(ImageFilter.GaussianBlur(radius * 1.8)), dtype=np.float32)
    step = (outer - inner).clip(0, None) if dark else np.abs(inner - outer)
    return np.asarray(step / 22, dtype=np.float32).clip(0, 1)


def _wobble(view: View, reach: float, cell: float) -> None:
    """Moves the pixels about a little, as a hand would."""
    canvas = view.canvas
    pad = int(canvas.unit * reach) + 3  # so that nothing is fetched from outside the picture
    wide = np.pad(np.asarray(canvas.image()), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    mesh = _bent_grid(view, max(6, int(canvas.unit * cell)), canvas.unit * reach, pad)
    size = (canvas.width, canvas.height)
    moved = Image.fromarray(wide).transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    canvas.rgb[:] = np.asarray(moved, dtype=np.float32) / 255


Box = tuple[int, int, int, int]
Quad = tuple[float, ...]


def _bent_grid(view: View, step: int, reach: float, pad: int) -> list[tuple[Box, Quad]]:
    """Squares of `step` pixels, each with the quadrilateral that it is filled from."""
    width, height = view.canvas.width, view.canvas.height
    columns, rows = -(-width // step), -(-height // step)
    bent = view.dice.array().uniform(-reach, reach, (rows + 1, columns + 1, 2)) + pad
    bent[..., 0] += np.minimum(np.arange(columns + 1) * step, width)
    bent[..., 1] += np.minimum(np.arange(rows + 1) * step, height)[:, None]
    mesh: list[tuple[Box, Quad]] = []
    for row in range(rows):
        for column in range(columns):
            box = (column * step, row * step, min(width, (column + 1) * step), min(height, (row + 1) * step))
            corners = (bent[row + down, column + across] for down, across in ((0, 0), (1, 0), (1, 1), (0, 1)))
            mesh.append((box, tuple(float(value) for corner in corners for value in corner)))
    return mesh

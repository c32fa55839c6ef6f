"""Still water that mirrors what is above it, and the open sea."""

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, Field, mix, ramp
from gpu_worker.engines.sketch.scenes.sky import Sun
from gpu_worker.engines.sketch.scenes.view import View


def reflect(view: View, line: float, tint: Colour, *, ripple: float = 1.0, clear: float = 0.72) -> None:
    """Turns everything under `line` (pixels from above) into water that mirrors what is over it."""
    canvas, dice = view.canvas, view.dice
    top = int(np.clip(line, 2, canvas.height - 1))
    rows = canvas.height - top
    down = np.arange(rows, dtype=np.float32)
    away = down / max(1, rows)
    stretch = min(1.0, (top - 1) / max(1, rows))
    wobble = (
        dice.array().uniform(-1, 1, rows).astype(np.float32) * canvas.unit * 0.004 * ripple * (0.3 + 2 * away)
    )
    source = np.clip(top - 1 - down * stretch + wobble, 0, top - 1).astype(np.intp)
    swell = (
        np.sin(down / (canvas.unit * 0.006 * (0.6 + 3 * away)) + wobble)
        * canvas.unit
        * 0.0035
        * ripple
        * (0.2 + 2 * away)
    )
    across = np.clip(canvas.x - 0.5 + swell[:, None], 0, canvas.width - 1).astype(np.intp)
    mirrored = canvas.rgb[source[:, None], across]
    share = ((1 - clear) + 0.35 * away)[:, None, None]
    canvas.rgb[top:] = mirrored + (tint.rgb - mirrored) * share
    glint = np.exp(-(((canvas.y - line) / (canvas.unit * 0.0025)) ** 2)) * 0.5
    canvas.lay(
        mix(view.scheme.horizon, view.scheme.glow, 0.5),
        Stamp(np.broadcast_to(glint, (canvas.height, canvas.width))),
    )


def paint_sea(view: View, line: float, sun: Sun) -> None:
    """Open water from the horizon `line` down, with waves in perspective and the sun's path on it."""
    canvas, scheme = view.canvas, view.scheme
    top = int(np.clip(line, 1, canvas.height - 1))
    rows = canvas.height - top
    away = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows
    near = mix(scheme.zenith, scheme.near, 0.45).strong(1.15)
    middle = mix(scheme.zenith, scheme.sky, 0.3).lit(scheme.sky.lightness * 0.8)
    table = ramp([mix(scheme.horizon, scheme.sky, 0.45), middle, near], [0, 0.3, 1])
    waves = swell(view, rows)
    place = (away + (waves - 0.5) * (0.10 + 0.24 * away)).clip(0, 1)
    canvas.rgb[top:] = table[(place * (len(table) - 1)).astype(np.intp)]
    _sun_path(view, top, away, waves, sun)


def swell(view: View, rows: int) -> Field:
    """Waves (rows, width) of 0 to 1 in perspective: fine and flat far away, broad and slow near by."""
    canvas, dice = view.canvas, view.dice
    tile = noise.field(dice, 512, 512, cells=(18, 18), octaves=4, roughness=0.62)
    away = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows
    reach = 0.09 + away
    u = (canvas.x - canvas.width / 2) / (canvas.unit * reach) * 190
    v = 760 / reach
    return _sample(tile, u, np.broadcast_to(v, u.shape))


def _sample(tile: Field, u: Field, v: Field) -> Field:
    """The tile at (v, u), mirrored without end and smooth between its pixels."""
    size = tile.shape[0]
    both = np.concatenate([tile, tile[::-1]], axis=0)
    whole = np.concatenate([both, both[:, ::-1]], axis=1)
    i, j = np.floor(v).astype(np.intp), np.floor(u).astype(np.intp)
    a, b = (v - i).astype(np.float32), (u - j).astype(np.float32)
    i0, i1, j0, j1 = i % (2 * size), (i + 1) % (2 * size), j % (2 * size), (j + 1) % (2 * size)
    upper = whole[i0, j0] * (1 - b) + whole[i0, j1] * b
    lower = whole[i1, j0] * (1 - b) + whole[i1, j1] * b
    return np.asarray(upper * (1 - a) + lower * a, dtype=np.float32)


def _sun_path(view: View, top: int, away: Field, waves: Field, sun: Sun) -> None:
    canvas, scheme = view.canvas, view.scheme
    width = sun.radius * 0.9 + canvas.unit * 0.16 * away
    column = np.exp(-(((canvas.x - sun.x) / width) ** 2))
    sparkle = noise.ease(0.52, 0.72, waves + column * 0.16)
    strength = (0.35 if scheme.light.name in ("storm", "overcast") else 0.95) * (1 - 0.35 * away)
    canvas.lay(scheme.glow, Stamp(np.asarray(sparkle * column * strength, dtype=np.float32), 0, top))
    crests = noise.ease(0.74, 0.95, waves) * (0.10 + 0.3 * away)
    canvas.lay(mix(scheme.horizon, scheme.glow, 0.4), Stamp(np.asarray(crests, dtype=np.float32), 0, top))

"""Soft chance: smooth random lines and fields."""

import numpy as np
from PIL import Image

from gpu_worker.engines.sketch.colour import Field
from gpu_worker.engines.sketch.dice import Dice


def line(dice: Dice, places: Field, *, octaves: int = 5, roughness: float = 0.5) -> Field:
    """Smooth noise of -1 to 1 at `places`, where 1 is the length of the coarsest wave."""
    total = np.zeros_like(places)
    weight, norm = 1.0, 0.0
    first = int(np.floor(places.min()))
    span = int(np.ceil(places.max())) - first + 2
    for octave in range(octaves):
        scale = 2**octave
        knots = dice.array().uniform(-1, 1, span * scale + 3)
        total += weight * _smooth(knots, (places - first) * scale)
        norm += weight
        weight *= roughness
    return np.asarray(np.tanh(total / norm * 1.7), dtype=np.float32)  # no flat tops, as clipping would leave


def _smooth(knots: Field, places: Field) -> Field:
    index = np.floor(places).astype(np.intp)
    part = places - index
    eased = part * part * part * (part * (part * 6 - 15) + 10)
    return np.asarray(knots[index] * (1 - eased) + knots[index + 1] * eased)


def field(
    dice: Dice,
    width: int,
    height: int,
    *,
    cells: tuple[float, float],
    octaves: int = 4,
    roughness: float = 0.5,
) -> Field:
    """Smooth noise (height, width) of about 0 to 1; `cells` is how many coarse waves go across and down."""
    total = np.zeros((height, width), dtype=np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        across = min(width, max(2, round(cells[0] * 2**octave) + 1))
        down = min(height, max(2, round(cells[1] * 2**octave) + 1))
        grid = Image.fromarray(dice.array().uniform(0, 1, (down, across)).astype(np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        norm += weight
        weight *= roughness
    stretched = (total / norm - 0.5) * (1 + 0.28 * octaves) + 0.5
    return np.asarray(stretched, dtype=np.float32).clip(0, 1)


def grain(dice: Dice, width: int, height: int) -> Field:
    """Film grain (height, width, 1): a tile of noise of about -1 to 1, laid over the whole."""
    side = 256
    tile = dice.array().standard_normal((side, side)).astype(np.float32) * 0.5
    down, across = -(-height // side), -(-width // side)
    return np.tile(tile, (down, across))[:height, :width, None]


def ease(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between (low may be the greater: it then falls)."""
    part = ((value - low) / (high - low)).clip(0, 1)
    return np.asarray(part * part * (3 - 2 * part), dtype=np.float32)

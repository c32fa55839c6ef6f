"""Colours in OKLCH (evenly seen lightness, chroma, hue) and what they become on the screen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # one number per pixel, or anything that broadcasts to it
RGB = NDArray[np.floating[Any]]  # sRGB, 0 to 1, last axis 3

_LAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@dataclass(frozen=True)
class Colour:
    """One colour: lightness 0 to 1, chroma 0 to about 0.35, hue in degrees."""

    lightness: float
    chroma: float
    hue: float

    def lit(self, lightness: float) -> "Colour":
        """The same colour at another lightness."""
        return replace(self, lightness=min(1.0, max(0.0, lightness)))

    def strong(self, factor: float) -> "Colour":
        """The same colour with so many times the chroma."""
        return replace(self, chroma=self.chroma * factor)

    def turned(self, degrees: float) -> "Colour":
        """The same colour with its hue turned."""
        return replace(self, hue=(self.hue + degrees) % 360)

    def lab(self) -> tuple[float, float, float]:
        """OKLab coordinates."""
        angle = math.radians(self.hue)
        return self.lightness, self.chroma * math.cos(angle), self.chroma * math.sin(angle)

    @property
    def rgb(self) -> RGB:
        """sRGB, brought into gamut by giving up chroma, never hue or lightness."""
        low, high = 0.0, 1.0
        if _in_gamut(_linear(self.lab())):
            return _encode(_linear(self.lab()))
        for _ in range(10):
            middle = (low + high) / 2
            low, high = (middle, high) if _in_gamut(_linear(self.strong(middle).lab())) else (low, middle)
        return _encode(_linear(self.strong(low).lab()))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Between two colours, on the straight line that the eye would draw."""
    lab = [a + (b - a) * share for a, b in zip(first.lab(), second.lab(), strict=True)]
    return Colour(lab[0], math.hypot(lab[1], lab[2]), math.degrees(math.atan2(lab[2], lab[1])) % 360)


def ramp(colours: Sequence[Colour], positions: Sequence[float] | None = None, size: int = 512) -> RGB:
    """A table of `size` colours (size, 3) that runs through `colours`."""
    places = np.linspace(0, 1, len(colours)) if positions is None else np.asarray(positions)
    labs = np.array([colour.lab() for colour in colours])
    steps = np.linspace(0, 1, size)
    table = np.stack([np.interp(steps, places, labs[:, axis]) for axis in range(3)], axis=-1)
    return _encode(_linear(table))


def _linear(lab: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    lms = np.asarray(lab) @ _LAB_TO_LMS.T
    return np.asarray((lms**3) @ _LMS_TO_LINEAR.T)


def _in_gamut(linear: NDArray[np.float64]) -> bool:
    return bool(linear.min() >= -1e-4 and linear.max() <= 1.0001)


def _encode(linear: NDArray[np.float64]) -> RGB:
    clipped = np.clip(linear, 0, 1)
    encoded = np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return encoded.astype(np.float32)

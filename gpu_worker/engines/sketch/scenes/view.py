"""What a scene is given to paint with, and what it promises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpu_worker.engines.sketch.canvas import Canvas
from gpu_worker.engines.sketch.dice import Dice
from gpu_worker.engines.sketch.light import Scheme
from gpu_worker.engines.sketch.reading import Brief


@dataclass(frozen=True)
class View:
    """One picture in the making."""

    canvas: Canvas
    brief: Brief
    dice: Dice

    @property
    def scheme(self) -> Scheme:
        """The colours to paint with."""
        return self.brief.scheme

    def horizon(self, low: float, high: float) -> float:
        """Where the horizon lies, in pixels from above: as asked, else between two shares of the height."""
        chosen = self.dice.between(low, high)
        return (chosen if self.brief.horizon is None else self.brief.horizon) * self.canvas.height


Scene = Callable[[View], Iterator[float]]
"""Paints a view from back to front, and yields the share that is done (0 to 1) between its layers."""

"""The engine without a GPU and without weights: it composes pictures from words and chance."""

from gpu_worker.engines.sketch.engine import SketchEngine
from gpu_worker.engines.sketch.simulator import Simulator

__all__ = ["Simulator", "SketchEngine"]

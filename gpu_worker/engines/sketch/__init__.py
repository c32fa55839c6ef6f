"""The engine without a GPU and without weights: it composes pictures from words and chance."""

from gpu_worker.engines.sketch.engine import SketchEngine

__all__ = ["SketchEngine"]

"""A node process whose one model is made at random: all of a node but its launcher and the model's files."""

import json
import os
import sys

from gpu_worker.devices import on_cpu
from gpu_worker.engines.base import Engine
from gpu_worker.node import serve
from gpu_worker.registry import ENGINES, Registered
from gpu_worker.settings import Settings, get_settings
from scripts.benchmarks.gpu.architectures import Fewer
from scripts.benchmarks.gpu.random_models import make_engine

SPEC = "BENCH_MODEL"  # JSON: alias, batch, compiled, fewer_layers


def main() -> int:
    """The node's own exit code."""
    spec = json.loads(os.environ[SPEC])

    def make(_settings: Settings) -> Engine:
        return make_engine(
            spec["alias"],
            batch=spec["batch"],
            compiled=spec["compiled"],
            fewer=Fewer(layers=spec["fewer_layers"]),
        )

    ENGINES["diffusers"] = Registered(make, lambda _: on_cpu(), concurrency=2 * spec["batch"] + 2)
    return serve(get_settings(), "diffusers", "")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m scripts.benchmarks NAME`: measures, tells as it goes, and writes a file of figures."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType

from scripts.benchmarks import api, gpu, queue, thumbnails
from scripts.benchmarks.figures import Figures

# A new benchmark is a module with `ABOUT`, `add_options` and `measure`, and a line here.
BENCHMARKS: dict[str, ModuleType] = {
    "gpu": gpu,
    "queue": queue,
    "api": api,
    "thumbnails": thumbnails,
}


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 unless something breaks. A goal that is missed is a figure, not a failure."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _as_interrupt)
    figures = Figures()
    try:
        with contextlib.suppress(BrokenPipeError):
            BENCHMARKS[asked.benchmark].measure(asked, figures)
    except KeyboardInterrupt:
        print("Interrupted: what was measured until now follows.", file=sys.stderr)
        figures.finish(asked.json)
        return 130
    figures.finish(asked.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures how fast it is.")
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=module.ABOUT, description=module.ABOUT)
        command.add_argument("--json", type=Path, metavar="FILE", help="writes the figures there as well")
        module.add_options(command)
    return parser


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

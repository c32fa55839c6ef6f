"""The benchmark `queue`: what the machinery costs beside the usual workflow, and beside bare Celery."""

import argparse

from scripts.benchmarks.figures import Figures

ABOUT = "the whole workflow without pixel work, beside the usual one and a bare Celery chord; many nodes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--rounds", type=int, default=5, help="of each way, in turns (default: 5)")
    parser.add_argument("--jobs", type=int, default=100, help="in a round (default: 100)")
    parser.add_argument(
        "--nodes", default="1,4,16,64", metavar="N,N", help="how many simulated nodes; empty: none"
    )
    parser.add_argument("--takes", type=float, default=4.0, help="seconds for an image on those (default: 4)")


def measure(asked: argparse.Namespace, figures: Figures) -> None:
    """All ways in turns, then ever more nodes."""
    from scripts.benchmarks.queue import scaling, ways

    ways.measure(figures, rounds=asked.rounds, jobs=asked.jobs)
    counts = [int(count) for count in asked.nodes.split(",") if count]
    if counts:
        scaling.measure(figures, counts, takes_s=asked.takes)

"""The benchmark `api`: accepts, polls and event streams, against a bare endpoint on the same database."""

import argparse

from scripts.benchmarks.figures import Figures

ABOUT = "the API over loopback: accepts/s, polls/s and event streams, against a bare Starlette endpoint"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--database", choices=("postgres", "sqlite"), default="postgres", help="(default: postgres)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="side by side (default: 7)")
    parser.add_argument("--requests", type=int, default=2000, help="of each kind in a round (default: 2000)")
    parser.add_argument("--clients", type=int, default=16, help="connections at once (default: 16)")
    parser.add_argument("--streams", type=int, default=2000, help="event streams; 0: none (default: 2000)")


def measure(asked: argparse.Namespace, figures: Figures) -> None:
    """Rates side by side, then streams."""
    # Imported here, so that --help and the other benchmarks don't wait for SQLAlchemy
    from backend.serving import allow_many_connections
    from scripts.benchmarks.api import rates, servers, streams

    allow_many_connections()
    with servers.house(asked.database) as house:
        rates.measure(figures, house, rounds=asked.rounds, requests=asked.requests, clients=asked.clients)
        if asked.streams:
            streams.measure(figures, house, count=asked.streams)

"""The benchmark `gpu`: what the queue costs, on tiny models; how fast a GPU is, on real ones."""

import argparse

from scripts.benchmarks.figures import Figures, say

ABOUT = "diffusers on a node: overhead and batching with tiny models; --real: real architectures on a GPU"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--real", action="store_true", help="real architectures, random weights; wants a GPU")
    parser.add_argument("--tiny", action="store_true", help="tiny models too, where --real is given")
    parser.add_argument(
        "--models", default="", metavar="A,B", help="with --real: only these (sd15, sdxl, ...)"
    )
    parser.add_argument(
        "--batches", default="", metavar="N,M", help="with --real: images at once, from 1 on (1,4)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the tiny models, side by side (default: 5)")
    parser.add_argument("--images", type=int, default=32, help="in a round (default: 32)")
    parser.add_argument("--steps", type=int, default=100, help="of each tiny image (default: 100)")
    parser.add_argument("--batch", type=int, default=8, help="of the tiny model (default: 8)")
    parser.add_argument("--small", action="store_true", help="with --real: few layers, to try the command")


def measure(asked: argparse.Namespace, figures: Figures) -> None:
    """Tiny models, unless only real ones are asked for; real ones where there is a GPU, or --real --small."""
    # Imported here, so that --help and the other benchmarks need no torch
    from scripts.benchmarks.gpu import real, tiny

    if asked.tiny or not asked.real:
        tiny.measure(figures, rounds=asked.rounds, images=asked.images, steps=asked.steps, batch=asked.batch)
    if asked.real or real.has_gpu():
        names = [name for name in asked.models.split(",") if name]
        batches = [int(size) for size in asked.batches.split(",") if size]
        real.measure(figures, names, batches=batches, small=asked.small)
    else:
        say("no GPU here: the real architectures are left out (--real tries the command all the same)")

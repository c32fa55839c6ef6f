"""A tiny SDXL on the CPU: a bare loop, the engine, and the whole queue, side by side in one run.

The bare loop is diffusers as its documentation shows it: `pipe(prompt=[...], generator=[...])`, with PIL
images at its end. The queue adds to it: a broker, a node process, batching, encoding to WebP, an upload over
HTTP and reports. All use one torch thread: what is measured is what we add, not torch.
"""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionXLPipeline

from contract.messages import Device
from gpu_worker.engines.base import ImageRequest, Picture
from gpu_worker.engines.diffusers.catalog_file import load_catalog
from gpu_worker.engines.diffusers.engine import DiffusersEngine
from gpu_worker.engines.diffusers.hub import served
from gpu_worker.engines.diffusers.loading import Loader
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.processes import Process
from scripts.benchmarks.rounds import Measured, Way, in_turns, times_as_fast
from scripts.benchmarks.stand import Order, Stand, stand
from tests.gpu_worker.engines.diffusers.tiny import build

SIZE: Final = 64  # pixels
GUIDANCE: Final = 5.0
TOGETHER, ALONE = "tiny-sdxl", "tiny-sdxl-alone"  # the same model; the catalog allows batches, or doesn't
SUBJECT: Final = "tiny SDXL"
LOOP, LOOP_1 = "bare loop", "bare loop, one at a time"
ENGINE = "engine alone"
QUEUE, QUEUE_1 = "whole queue", "whole queue, one at a time"
TOGETHER_WAYS: Final = (LOOP, ENGINE, QUEUE)
GAIN: Final = Goal("ratio", ">=", 2.0)
OVERHEAD: Final = Goal("ratio", ">=", 0.97)
COMPARED: Final[Sequence[tuple[str, str | None, Goal | None]]] = (
    (LOOP, None, None),
    (LOOP_1, None, None),
    (ENGINE, LOOP, None),
    (QUEUE, LOOP, OVERHEAD),
    (QUEUE_1, LOOP_1, None),
    (QUEUE, QUEUE_1, GAIN),
)


def measure(figures: Figures, *, rounds: int, images: int, steps: int, batch: int) -> None:
    """Adds the figures of one run. `images` is a multiple of `batch`."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the node
    torch.set_num_threads(1)
    say(f"tiny SDXL, {SIZE}x{SIZE}, {steps} steps, {images} images in batches of {batch}, one torch thread")
    with stand() as house:
        catalog = write_catalog(house.folder, batch)
        node = house.start(["-m", "gpu_worker"], node_environment(catalog))
        here = Here(catalog, steps)
        house.wait_until_ready(node)
        queue = Queue(house, node, steps)
        single = max(images // 4, 1)
        ways = {
            LOOP: Way(images, lambda: here.loop(images, batch), time.process_time),
            LOOP_1: Way(single, lambda: here.loop(single, 1), time.process_time),
            ENGINE: Way(images, lambda: here.engine(images, batch), time.process_time),
            QUEUE: Way(images, lambda: queue.make(TOGETHER, images), node.cpu_seconds),
            QUEUE_1: Way(single, lambda: queue.make(ALONE, single), node.cpu_seconds),
        }
        for way in ways.values():  # loads the models, and meets everything once
            way.make()
        found = in_turns(ways, rounds)
    tell(figures, found, batch)


def tell(figures: Figures, found: Mapping[str, Measured], batch: int) -> None:
    """Rates, and how they compare."""
    for way, against, goal in COMPARED:
        times = f", batches of {batch}" if way in TOGETHER_WAYS else ""
        versus = f", against the {against}" if against else ""
        # The median of the rounds' own ratios, in each of which both met the same machine
        ratio = times_as_fast(found[way], found[against]) if against else None
        rate = found[way].rate
        baseline = rate / ratio if ratio else None
        figures.add(f"{SUBJECT}: {way}{times}{versus}", rate, "images/s", baseline=baseline, goal=goal)
    if found[QUEUE].cpu:
        ours, bare = (1000 * statistics.median(found[way].cpu) for way in (QUEUE, LOOP))
        figures.add(
            f"{SUBJECT}: CPU time of an image, whole node, against the {LOOP}", ours, "ms", baseline=bare
        )
    for way, one in found.items():
        figures.add(f"{SUBJECT}: spread of the rounds, {way}", 100 * one.spread, "%")


class Here:
    """What runs in this process: the bare loop, and the engine alone."""

    def __init__(self, catalog: Path, steps: int) -> None:
        self._steps = steps
        self._numbers = count()
        entries = served(load_catalog(catalog), [TOGETHER], catalog.parent)
        cpu = torch.device("cpu")
        loader = Loader(entries, catalog.parent, cpu)
        self._engine = DiffusersEngine(entries, loader, Device(kind="cpu", name="CPU"), cpu)
        self._pipe: Any = StableDiffusionXLPipeline.from_pretrained(entries[0].source)
        self._pipe.set_progress_bar_config(disable=True)

    def loop(self, images: int, batch: int) -> None:
        """Makes so many images with the pipeline itself."""
        for _ in range(images // batch):
            numbers = [next(self._numbers) for _ in range(batch)]
            made = self._pipe(
                prompt=[f"a lighthouse, picture {number}" for number in numbers],
                generator=[torch.Generator().manual_seed(number) for number in numbers],
                width=SIZE, height=SIZE, num_inference_steps=self._steps, guidance_scale=GUIDANCE,
            ).images  # fmt: skip
            assert len(made) == batch

    def engine(self, images: int, batch: int) -> None:
        """Makes so many images with the engine, by its own thread's call."""
        for _ in range(images // batch):
            requests = [self._request(next(self._numbers)) for _ in range(batch)]
            made = self._engine.generate(requests, Nobody())
            assert all(isinstance(one, Picture) for one in made), made

    def _request(self, number: int) -> ImageRequest:
        return ImageRequest(
            id=str(number), model=TOGETHER, prompt=f"a lighthouse, picture {number}", seed=number,
            width=SIZE, height=SIZE, steps=self._steps, guidance=GUIDANCE,
        )  # fmt: skip


class Nobody:
    """A watch over images that nobody waits for."""

    def progress(self, request_id: str, fraction: float) -> None:
        """Told to nobody."""

    def preview(self, request_id: str, jpeg: bytes) -> None:
        """Shown to nobody."""

    def canceled(self, request_id: str) -> bool:  # noqa: ARG002  # the port's
        """Never."""
        return False


class Queue:
    """The node, through its queue. Each round has prompts of its own: none is remembered."""

    def __init__(self, house: Stand, node: Process, steps: int) -> None:
        self._house, self._node, self._steps = house, node, steps
        self._first = 0

    def make(self, model: str, images: int) -> float:
        """Seconds."""
        self._first += images
        order = Order(model, images, SIZE, SIZE, self._steps, GUIDANCE, first=self._first)
        return self._house.make(order, self._node)


def node_environment(catalog: Path, models: Sequence[str] = ()) -> dict[str, str]:
    """Of a node with diffusers on the CPU."""
    return {
        "FANFARE_NODE_ENGINES": "diffusers", "FANFARE_NODE_DEVICES": "cpu",
        "FANFARE_NODE_CATALOG": str(catalog), "FANFARE_NODE_MODELS": ",".join(models),
        "FANFARE_LOG_LEVEL": "WARNING",
    }  # fmt: skip


def write_catalog(folder: Path, batch: int) -> Path:
    """Builds the tiny model, and a catalog that names it twice."""
    build("sdxl", folder / "sdxl")
    catalog = folder / "catalog.toml"
    catalog.write_text(_table(TOGETHER, batch) + _table(ALONE, 1), "utf-8")
    return catalog


def _table(alias: str, batch: int) -> str:
    return f"""
[models.{alias}]
source = "./sdxl"
family = "sdxl"
license = "none needed: random weights"
defaults = {{ width = {SIZE}, height = {SIZE}, steps = 4, guidance = {GUIDANCE} }}
limits = {{ min_size = 32, max_size = 256, max_steps = 1000, batch = {batch} }}
"""

"""Real architectures with random weights: bare loops and the whole queue, eager and compiled, on one GPU.

The bare loop is diffusers' own call, `pipe(prompt=[...], generator=[...])`; once as it comes, once made as
fast as a node makes it. Only the latter is what the queue is compared with.
"""

import gc
import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any, Final, Literal

import torch

from gpu_worker.engines.base import ImageRequest
from gpu_worker.engines.diffusers import memory, speed
from gpu_worker.engines.diffusers.device import this_device
from gpu_worker.engines.diffusers.families.base import FamilyAdapter, Run
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.gpu.architectures import ARCHITECTURES, Architecture, Fewer
from scripts.benchmarks.gpu.flops import TOKENS_OF_SCHNELL, image_flops
from scripts.benchmarks.gpu.random_models import make_adapter, make_engine, torch_device, waiting_for
from scripts.benchmarks.gpu.random_node import SPEC
from scripts.benchmarks.processes import Process
from scripts.benchmarks.stand import Order, Stand, stand

WITHIN_S: Final = 900.0  # after which no further model is begun
A_MODEL_S: Final = 200.0  # what one takes on an H200 with slow processors
MATRIX: Final = 8192  # rows and columns
CANCELS: Final = 5
STEPS_TO_CANCEL: Final = 12
EAGER: Final = "eager"
BATCHED_S: Final = 16.0  # for several batches through the queue, of which there are some at least
BATCHES: Final = (3, 6)
CANCEL_SLACK_S: Final = 0.050  # beside one step
# For one H200, from models' cards, MLPerf and others' measurements
SECONDS: Final = {"sdxl": 1.47, "flux-dev": 4.3, "flux-schnell": 0.62}  # an image alone, through the queue
THROUGHPUT: Final = {"sdxl": 1.4, "sd15": 3.5}  # images/s, batched, through the queue
FEWER_STEPS: Final = {"sdxl": 20}  # those that the goal of throughput is for
FIRST_IMAGE_S: Final = {"sdxl": 25.0}


def has_gpu() -> bool:
    """NVIDIA's, or AMD's as torch has them."""
    return torch.cuda.is_available()


def measure(
    figures: Figures, names: Sequence[str] = (), *, batches: Sequence[int] = (), small: bool = False
) -> None:
    """All architectures, or those of these names. Where there is no GPU, the smallest of them, shrunk to
    what a CPU does in a minute: it shows that the command works, and nothing else. `batches`: how many at
    once, in place of what each architecture has. `small`: with few layers.
    """
    begun = time.monotonic()
    device = torch_device()
    on_gpu = device.type == "cuda"
    say(f"real architectures, random weights, on {this_device().name}, torch {torch.__version__}")
    matrix = matrix_rate(device)
    figures.add("measured matrix rate", matrix / 1e12, "TFLOP/s")
    chosen = {name: ARCHITECTURES[name] for name in (names or (ARCHITECTURES if on_gpu else ("sd15",)))}
    for alias, architecture in chosen.items():
        left = WITHIN_S - (time.monotonic() - begun)
        if on_gpu and left < A_MODEL_S:
            say(f"{alias}: left out, only {left:.0f} s are left (name it: --models {alias})")
        elif on_gpu and (memory.total_bytes(device) or 0) < architecture.memory * 2**30:
            say(f"{alias}: left out, it wants {architecture.memory:.0f} GiB for all of the measurements")
        else:
            shown = architecture if on_gpu and not small else shrunk(architecture, (1, 2) if small else (1,))
            shown = replace(shown, batches=tuple(batches) or shown.batches)
            Measuring(figures, alias, shown, device, Fewer(layers=small), matrix).all()


def shrunk(architecture: Architecture, batches: tuple[int, ...]) -> Architecture:
    """As much of it as a CPU does."""
    return replace(architecture, size=64, steps=2, batches=batches)


def matrix_rate(device: torch.device, seconds: float = 1.0) -> float:
    """FLOP/s of a large product of matrices, in the precision that models have on this device."""
    side = MATRIX if device.type == "cuda" else MATRIX // 16
    dtype, wait = speed.dtype_of("auto", device), waiting_for(device)
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    rates = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        wait()
        begun = time.perf_counter()
        for _ in range(10):
            left @ right
        wait()
        rates.append(10 * 2 * side**3 / (time.perf_counter() - begun))
    return statistics.median(rates)


@dataclass
class Measuring:
    """All that is measured of one model."""

    figures: Figures
    alias: str
    architecture: Architecture
    device: torch.device
    fewer: Fewer
    matrix: float  # FLOP/s
    on_gpu: bool = field(init=False)
    bare: dict[int, float] = field(default_factory=dict)  # seconds of a batch, made as fast as a node's

    def __post_init__(self) -> None:
        self.on_gpu = self.device.type == "cuda"
        self.flops = 0.0 if self.fewer.layers else image_flops(self.architecture)

    def all(self) -> None:
        """In this process first, then through a node: so that they don't share the device."""
        self.loops()
        self.free()
        with stand() as house:
            self.queue(house)
        self.cancel_in_engine()
        self.free()

    # -- in this process ------------------------------------------------------------------------------

    def loops(self) -> None:
        """The bare loop, as it comes, and made fast."""
        adapter = make_adapter(self.architecture, self.fewer, self.device)
        batches = self.architecture.batches
        for batch in dict.fromkeys((batches[0], batches[-1])):  # what lies between them tells nothing new
            self.loop(adapter, batch, EAGER)
        with torch.inference_mode():
            traits = speed.quicken(adapter, self.run(), self.device, compiled=True)
        say(f"{self.alias}: made fast: {dict(traits)}")
        way = "compiled" if traits["compiled"] else "as a node has it"
        for batch in self.architecture.batches:
            self.bare[batch] = self.loop(adapter, batch, way)

    def loop(self, adapter: FamilyAdapter, batch: int, way: str) -> float:
        """Seconds of one batch; they, the rates and the memory are told."""
        pipe = Loop(adapter.pipe, self.architecture, waiting_for(self.device))
        pipe.seconds(batch, steps=2)
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = min(pipe.seconds(batch) for _ in range(2 if self.on_gpu and way != EAGER else 1))
        self.tell_loop(f"{self.alias}: bare loop, {way}, batch {batch}", seconds, batch)
        return seconds

    def tell_loop(self, name: str, seconds: float, batch: int) -> None:
        add = self.figures.add
        add(f"{name}: an image", 1000 * seconds / batch, "ms")
        add(f"{name}: rate", batch / seconds, "images/s")
        if self.flops:
            rate = batch * self.flops / seconds
            add(f"{name}: work", rate / 1e12, "TFLOP/s", baseline=self.matrix / 1e12)
        if self.on_gpu:
            add(f"{name}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")

    def cancel_in_engine(self) -> None:
        """From the wish to the engine being free, in the middle of an image."""
        engine = make_engine(self.alias, batch=1, compiled=False, fewer=self.fewer)
        try:
            request = self.request()
            engine.generate([request], Wish())
            nobody = Wish()
            engine.generate([request], nobody)
            delays = [self.one_cancel(engine, request) for _ in range(CANCELS if self.on_gpu else 1)]
        finally:
            engine.close()
        bound = 1000 * (nobody.step() + CANCEL_SLACK_S)
        goal = self.goal("value", "<=", round(bound, 1))
        self.figures.add(
            f"{self.alias}: cancel, until the engine is free", 1000 * max(delays), "ms", goal=goal
        )

    def one_cancel(self, engine: Any, request: ImageRequest) -> float:  # noqa: ANN401  # the engine, or a test's
        wish = Wish(after=0.4)
        engine.generate([request], wish)
        return time.perf_counter() - wish.said_at if wish.said_at else 0.0  # it was done before

    def free(self) -> None:
        """The node gets the whole device."""
        gc.collect()
        memory.empty(self.device)
        torch.compiler.reset()

    # -- through the queue ----------------------------------------------------------------------------

    def queue(self, house: Stand) -> None:
        """First image after the start, one at a time, batched, and a cancel."""
        batch = max(self.bare, key=lambda size: size / self.bare[size])
        node = self.start(house, batch)
        self.figures.add(
            f"{self.alias}: first image after the start of the process",
            self.first_image(house, node),
            "s",
            goal=self.goal("value", "<=", FIRST_IMAGE_S.get(self.alias)),
        )
        numbers = count(100, 100)
        alone = statistics.median(
            house.make(self.order(1, next(numbers)), node) for _ in range(3 if self.on_gpu else 1)
        )
        self.figures.add(
            f"{self.alias}: whole queue, one image, {self.architecture.steps} steps",
            alone,
            "s",
            baseline=self.bare[1],
            goal=self.goal("value", "<=", SECONDS.get(self.alias)),
        )
        self.batched(house, node, batch, next(numbers))
        self.cancel_in_queue(house, node, next(numbers))

    def start(self, house: Stand, batch: int) -> Process:
        """A node with this model."""
        spec = {
            "alias": self.alias,
            "batch": batch,
            "compiled": self.on_gpu,
            "fewer_layers": self.fewer.layers,
        }
        environment = {SPEC: json.dumps(spec), "FANFARE_LOG_LEVEL": "INFO"}
        return house.start(["-m", "scripts.benchmarks.gpu.random_node"], environment)

    def first_image(self, house: Stand, node: Process) -> float:
        """Seconds; it waits in the queue while the node starts, loads, and compiles."""
        house.publish(house.messages(self.order(1, 0)))
        house.wait_for_ends(1, node)
        return time.monotonic() - node.begun

    def batched(self, house: Stand, node: Process, batch: int, first: int) -> None:
        """As many batches as show what lies between them."""
        fewest, most = BATCHES if self.on_gpu else (2, 2)
        batches = max(fewest, min(most, round(BATCHED_S / self.bare[batch])))
        house.make(self.order(batch, first, few=True), node)  # this size of batch for the first time
        images = batches * batch
        rate = images / house.make(self.order(images, first + batch), node)
        bare = batch / self.bare[batch]
        name = f"{self.alias}: whole queue, batches of {batch}, {self.architecture.steps} steps"
        self.figures.add(name, rate, "images/s", baseline=bare, goal=self.goal("ratio", ">=", 0.97))
        steps = (
            FEWER_STEPS.get(self.alias, self.architecture.steps) if self.on_gpu else self.architecture.steps
        )
        if self.alias not in THROUGHPUT:
            return
        if steps != self.architecture.steps:
            rate = images / house.make(self.order(images, first + 50, steps=steps), node)
        name = f"{self.alias}: throughput, batches of {batch}, {steps} steps"
        self.figures.add(name, rate, "images/s", goal=self.goal("value", ">=", THROUGHPUT[self.alias]))

    def cancel_in_queue(self, house: Stand, node: Process, first: int) -> None:
        """From the flag in the result store to the end's report: the node looks for flags now and then."""
        messages = house.messages(self.order(1, first, steps=100))
        house.publish(messages)
        job_id = messages[0].job_id
        until = time.monotonic() + 60
        while not house.signals.progress([job_id])[job_id] and time.monotonic() < until:
            time.sleep(0.01)
        begun = time.perf_counter()
        house.signals.end(job_id, 1, [], may_wait=True)
        house.wait_for_ends(1, node)
        seconds = time.perf_counter() - begun
        self.figures.add(f"{self.alias}: cancel, until the job is at its end", 1000 * seconds, "ms")

    # -- what is asked for ----------------------------------------------------------------------------

    def goal(
        self, of: Literal["value", "ratio"], sign: Literal[">=", "<="], bound: float | None
    ) -> Goal | None:
        """Goals are for GPUs: a CPU shows only that the command works."""
        return Goal(of, sign, bound) if self.on_gpu and bound is not None else None

    def run(self) -> Run:
        one = self.architecture
        return Run("text-to-image", one.size, one.size, one.steps, one.guidance)

    def request(self) -> ImageRequest:
        """Of the engine; with as many steps as a cancel needs."""
        one = self.architecture
        return ImageRequest(
            id="cancel",
            model=self.alias,
            prompt="a lighthouse",
            seed=1,
            width=one.size,
            height=one.size,
            steps=min(one.steps, STEPS_TO_CANCEL),
        )

    def order(self, images: int, first: int, *, steps: int = 0, few: bool = False) -> Order:
        """Of the queue."""
        one = self.architecture
        steps = 2 if few else steps or one.steps
        return Order(self.alias, images, one.size, one.size, steps, one.guidance, first=first)


class Loop:
    """What somebody writes who has only diffusers."""

    def __init__(self, pipe: Any, architecture: Architecture, wait: Any) -> None:  # noqa: ANN401  # diffusers' own
        self._pipe, self._architecture, self._wait = pipe, architecture, wait

    def seconds(self, batch: int, steps: int = 0) -> float:
        """Of one batch, with PIL images at its end."""
        one = self._architecture
        self._wait()
        begun = time.perf_counter()
        schnell = one.family == "flux" and not one.guidance
        self._pipe(
            **({"max_sequence_length": TOKENS_OF_SCHNELL} if schnell else {}),
            prompt=["a lighthouse"] * batch,
            generator=[torch.Generator().manual_seed(number) for number in range(batch)],
            width=one.size,
            height=one.size,
            num_inference_steps=steps or one.steps,
            guidance_scale=one.guidance,
        )
        self._wait()
        return time.perf_counter() - begun


class Wish:
    """A watch over one image that somebody doesn't want any more when a share of it is done."""

    def __init__(self, after: float = 2.0) -> None:
        self._after = after
        self._reached = False
        self._steps: list[float] = []  # when each was told
        self.said_at = 0.0

    def step(self) -> float:
        """Seconds of one: the median of what lay between two."""
        return statistics.median(later - one for one, later in pairwise(self._steps))

    def progress(self, request_id: str, fraction: float) -> None:  # noqa: ARG002  # the port's
        """Changes its mind in the middle of the next step."""
        self._steps.append(time.perf_counter())
        if fraction >= self._after and not self._reached:
            self._reached = True
            threading.Timer(0.005, self._say).start()

    def _say(self) -> None:
        self.said_at = time.perf_counter()

    def preview(self, request_id: str, jpeg: bytes) -> None:
        """Shown to nobody."""

    def canceled(self, request_id: str) -> bool:  # noqa: ARG002  # the port's
        """Whether it was said."""
        return bool(self.said_at)

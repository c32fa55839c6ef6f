"""How the rate grows with the nodes: each image takes a fixed time, in which its node does nothing."""

import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from backend import db
from backend.celery_app import app as our_app
from backend.jobs.models import ImageGeneration
from backend.resources import Resources
from contract.queues import celery_settings
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.processes import Process
from scripts.benchmarks.queue.house import House, house
from scripts.benchmarks.queue.ours import TAKES
from scripts.benchmarks.queue.ways import settings_of, submit_one

LINEAR: Final = Goal("ratio", ">=", 0.9)
TURNS = 5  # images that each node makes


def measure(figures: Figures, counts: Sequence[int], *, takes_s: float) -> None:
    """The rate with so many nodes, against as many times what one could make."""
    with house() as built:
        env = built.ours(1) | {TAKES: str(takes_s)}
        resources = Resources.open(settings_of(env))
        db.upgrade(resources.settings.database_url)
        our_app.conf.update(celery_settings(env["FANFARE_BROKER_URL"], env["FANFARE_BROKER_URL"]))
        others = [
            built.start(["-m", "backend.cli", "api"], env),
            built.start(["-m", "scripts.benchmarks.queue.ours", "worker"], env),
        ]
        for count in counts:
            nodes = built.start(["-m", "scripts.benchmarks.queue.ours", "nodes", str(count)], env)
            rate, busy = _rate(built, resources, count, [*others, nodes])
            nodes.end()
            figures.add(
                f"{count} simulated nodes, {takes_s:g} s an image: images, against {count} times one node",
                rate, "images/s", baseline=count / takes_s, goal=LINEAR,
            )  # fmt: skip
            figures.add(f"{count} simulated nodes: processors that all of it kept busy", busy, "cores")
        resources.close()


def _rate(built: House, resources: Resources, count: int, parts: list[Process]) -> tuple[float, float]:
    """Images per second between the first and the last turn, and the processors that were busy."""
    built.until(
        lambda: sum(node.state == "ready" for node in resources.signals.nodes()) == count, *parts, pause_s=0.5
    )
    say(f"{count} nodes are ready")
    before = _made(resources)
    for _ in range(count):
        submit_one(resources, TURNS)

    def so_far() -> int:
        return _made(resources) - before

    built.until(lambda: so_far() >= count, *parts)
    cpu = sum(part.cpu_seconds() or 0 for part in parts)
    first, begun = so_far(), time.perf_counter()
    built.until(lambda: so_far() >= count * (TURNS - 1), *parts)
    last, seconds = so_far(), time.perf_counter() - begun
    busy = (sum(part.cpu_seconds() or 0 for part in parts) - cpu) / seconds
    built.until(lambda: so_far() >= count * TURNS, *parts)
    return (last - first) / seconds, busy


def _made(resources: Resources) -> int:
    images = sa.select(sa.func.count()).select_from(ImageGeneration)
    with resources.db.engine.connect() as connection:
        return connection.scalar(images.where(ImageGeneration.generated_at.is_not(None))) or 0

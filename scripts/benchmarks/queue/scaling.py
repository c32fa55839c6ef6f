"""How the rate grows with the nodes: each image takes a fixed time, in which its node does nothing."""

import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from backend import db
from backend.celery_app import app as our_app
from backend.jobs.models import ImageGeneration
from backend.resources import Resources
from backend.settings import Settings
from contract.queues import celery_settings
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.queue.house import House, house
from scripts.benchmarks.queue.ours import TAKES
from scripts.benchmarks.queue.ways import settings_of, submit_one

LINEAR: Final = Goal("ratio", ">=", 0.9)
TURNS = 5  # images that each node makes


def measure(figures: Figures, counts: Sequence[int], *, takes_s: float) -> None:
    """The rate with so many nodes, against as many times what one could make."""
    for count in counts:
        with house() as built:
            rate, busy = _rate(built, count, takes_s)
        figures.add(
            f"{count} simulated nodes, {takes_s:g} s an image: images, against {count} times one node",
            rate, "images/s", baseline=count / takes_s, goal=LINEAR,
        )  # fmt: skip
        figures.add(f"{count} simulated nodes: processors that all of it kept busy", busy, "cores")


def _rate(built: House, count: int, takes_s: float) -> tuple[float, float]:
    """Images per second between the first and the last turn, and the processors that were busy."""
    env = built.ours(1) | {TAKES: str(takes_s)}
    db.upgrade(Settings(_env_file=None, database_url=env["FANFARE_DATABASE_URL"]).database_url)
    parts = [
        built.start(["-m", "backend.cli", "api"], env),
        built.start(["-m", "scripts.benchmarks.queue.ours", "worker"], env),
        built.start(["-m", "scripts.benchmarks.queue.ours", "nodes", str(count)], env),
    ]
    resources = Resources.open(settings_of(env))
    our_app.conf.update(celery_settings(env["FANFARE_BROKER_URL"], env["FANFARE_BROKER_URL"]))
    built.until(
        lambda: sum(node.state == "ready" for node in resources.signals.nodes()) >= count, *parts, pause_s=0.5
    )
    say(f"{count} nodes are ready")
    for _ in range(count):
        submit_one(resources, TURNS)
    made = (
        sa.select(sa.func.count())
        .select_from(ImageGeneration)
        .where(ImageGeneration.generated_at.is_not(None))
    )

    def so_far() -> int:
        with resources.db.engine.connect() as connection:
            return connection.scalar(made) or 0

    built.until(lambda: so_far() >= count, *parts)
    cpu = sum(part.cpu_seconds() or 0 for part in parts)
    first, begun = so_far(), time.perf_counter()
    built.until(lambda: so_far() >= count * (TURNS - 1), *parts)
    seconds = time.perf_counter() - begun
    busy = (sum(part.cpu_seconds() or 0 for part in parts) - cpu) / seconds
    return (so_far() - first) / seconds, busy

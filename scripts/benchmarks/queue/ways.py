"""The whole workflow, the usual one, and bare Celery of the same shape, in turns: what a job costs."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import uuid4

import sqlalchemy as sa

from backend import db, submit
from backend.celery_app import app as our_app
from backend.jobs.models import ENDED, Job
from backend.pipelines import PIPELINES
from backend.resources import Resources
from backend.settings import Settings
from contract.queues import celery_settings
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.processes import Process
from scripts.benchmarks.queue.fixed import IMAGES, THUMBNAIL_SIZES
from scripts.benchmarks.queue.house import House, house, own_cpu_seconds
from scripts.benchmarks.queue.work import open_work

USUAL, OURS, BARE = "the usual workflow", "ours", "a bare chord"
FASTER: Final = Goal("ratio", ">=", 2.5)
LIGHTER: Final = Goal("ratio", "<=", 0.02)
CHEAPER: Final = Goal("ratio", "<=", 1.5)
CLEAN: Final = Goal("value", "<=", 0.0)


@dataclass
class Spent:
    """For one job, in each round."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds, of all of the way's own processes
    commands: list[float] = field(default_factory=list)  # of Redis
    bytes: list[float] = field(default_factory=list)  # to and from Redis
    left: list[float] = field(default_factory=list)  # bytes that Redis holds more than before


@dataclass(frozen=True)
class Way:
    """How a burst of jobs is made."""

    processes: list[Process]
    submit: Callable[[], object]
    ended: Callable[[], int]  # jobs, since the beginning


def measure(figures: Figures, *, rounds: int, jobs: int) -> None:
    """Adds the figures of one run."""
    say(f"{jobs} jobs of {IMAGES} images in a burst, {rounds} rounds, without pixel work")
    with house() as built:
        ways = {USUAL: usual(built), BARE: bare(built)}
        ways[OURS], work = ours(built)
        spent = {name: Spent() for name in ways}
        worked: list[float] = []
        for way in ways.values():  # meets everything once
            burst(built, way, max(jobs // 5, 2), Spent())
        for number in range(rounds):
            names = list(ways)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                burst(built, ways[name], jobs, spent[name])
            worked.append(one_by_one(work, jobs))
            say(
                f"round {number + 1} of {rounds}, jobs/s: "
                + ", ".join(f"{name} {1 / each.seconds[-1]:.1f}" for name, each in spent.items())
            )
        tell(figures, spent, median(worked))
        figures.add(
            "keys that ours leaves in Redis for more than minutes", lasting_keys(built), "keys", goal=CLEAN
        )


def burst(built: House, way: Way, jobs: int, spent: Spent) -> None:
    """So many jobs at once, until the last has ended."""
    store = built.store
    ended, memory = way.ended(), store.info("memory")["used_memory"]
    traffic, cpu, begun = built.traffic(), cpu_of(way), time.perf_counter()
    for _ in range(jobs):
        way.submit()
    built.until(lambda: way.ended() - ended >= jobs, *way.processes)
    spent.seconds.append((time.perf_counter() - begun) / jobs)
    time.sleep(0.5)  # what was written down after the end
    spent.cpu.append((cpu_of(way) - cpu) / jobs)
    more = built.traffic().since(traffic)
    spent.commands.append(more.commands / jobs)
    spent.bytes.append(more.bytes / jobs)
    spent.left.append((store.info("memory")["used_memory"] - memory) / jobs)


def cpu_of(way: Way) -> float:
    """Seconds; who submits is this process."""
    return own_cpu_seconds() + sum(process.cpu_seconds() or 0 for process in way.processes)


def one_by_one(way: Way, jobs: int) -> float:
    """Seconds of a processor for each job, where a job has ended when it was submitted."""
    for _ in range(max(jobs // 5, 5)):  # meets everything
        way.submit()
    begun = cpu_of(way)
    for _ in range(jobs):
        way.submit()
    return (cpu_of(way) - begun) / jobs


def tell(figures: Figures, spent: Mapping[str, Spent], work: float) -> None:
    """Rates and costs, and how they compare."""
    ours, usual, bare = spent[OURS], spent[USUAL], spent[BARE]
    for name in (USUAL, BARE):
        figures.add(f"{name}: jobs", 1 / median(spent[name].seconds), "jobs/s")
    rate = partial(figures.add, unit="jobs/s")
    rate(
        "ours: jobs, against the usual workflow",
        1 / median(ours.seconds),
        baseline=1 / median(usual.seconds),
        goal=FASTER,
    )
    rate("ours: jobs, against a bare chord", 1 / median(ours.seconds), baseline=1 / median(bare.seconds))
    took, floor = 1000 * median(ours.cpu), 1000 * median(bare.cpu)
    cpu = partial(figures.add, unit="ms")
    cpu("ours: processor time of a job, against the usual workflow", took, baseline=1000 * median(usual.cpu))
    cpu("ours: processor time of a job, against a bare chord", took, baseline=floor)
    cpu("of that: rows and files alone, without any queue", 1000 * work, baseline=took)
    cpu("and the machinery, against a bare chord", took - 1000 * work, baseline=floor, goal=CHEAPER)
    for what, unit, goal in (
        ("commands", "commands", None),
        ("bytes", "bytes", LIGHTER),
        ("left", "bytes", None),
    ):
        words = {"commands": "of Redis", "bytes": "through Redis", "left": "left in Redis"}[what]
        figures.add(
            f"ours: {unit} {words} for a job, against the usual workflow", median(getattr(ours, what)), unit,
            baseline=median(getattr(usual, what)), goal=goal,
        )  # fmt: skip


def median(values: list[float]) -> float:
    """Of the rounds."""
    return statistics.median(values)


# -- the ways -----------------------------------------------------------------------------------------


def usual(built: House) -> Way:
    """Two workers, as in all ways: one for what is CPU's, one in the place of a node."""
    os.environ |= {
        "BENCH_BROKER": built.broker.url(1),
        "BENCH_DATABASE": built.postgres.url(built.postgres.create_database()),
        "BENCH_FILES": str(built.folder / "usual"),
    }  # fmt: skip
    from scripts.benchmarks.queue import usual as workflow  # reads them

    workflow.metadata.create_all(workflow.engine())
    count = sa.select(sa.func.count()).where(workflow.jobs.c.status == "completed")

    def ended() -> int:
        with workflow.engine().connect() as connection:
            return connection.scalar(count) or 0

    return Way(celery_workers(built), lambda: workflow.submit(uuid4(), "a lighthouse"), ended)


def bare(built: House) -> Way:
    """The same workers, and a chord that does nothing."""
    from scripts.benchmarks.queue import usual as workflow

    with built.broker.client(1) as counting:
        counting.set(workflow.ENDED, 0)
    store = built.broker.client(1)
    return Way(celery_workers(built), workflow.submit_bare, lambda: int(store.get(workflow.ENDED) or 0))


def celery_workers(built: House) -> list[Process]:
    """Those of the usual workflow: started once, they serve both ways."""
    if not built.started:
        for arguments in (
            ["--pool=prefork", "--concurrency=2", "--queues=celery"],
            ["--pool=threads", "--concurrency=16", "--queues=gpu"],
        ):
            name = f"--hostname={arguments[0][7:]}@%h"
            built.start(
                [
                    "-m",
                    "celery",
                    "-A",
                    "scripts.benchmarks.queue.usual",
                    "worker",
                    *arguments,
                    name,
                    "--loglevel=WARNING",
                ],
                {},
            )
    return built.started[:2]


def ours(built: House) -> tuple[Way, Way]:
    """API (where nodes upload), worker and node, and the use case that accepts a job; and beside it what is
    left of that without any queue: the same rows and files, of one job after the other.
    """
    env = built.ours(2)
    db.upgrade(Settings(_env_file=None, database_url=env["FANFARE_DATABASE_URL"]).database_url)
    parts = [
        built.start(["-m", "backend.cli", "api"], env),
        built.start(["-m", "scripts.benchmarks.queue.ours", "worker"], env),
        built.start(["-m", "scripts.benchmarks.queue.ours", "nodes", "1"], env),
    ]
    resources = Resources.open(settings_of(env))
    our_app.conf.update(celery_settings(env["FANFARE_BROKER_URL"], env["FANFARE_BROKER_URL"]))
    built.until(lambda: any(node.state == "ready" for node in resources.signals.nodes()), *parts)
    count = sa.select(sa.func.count()).select_from(Job).where(Job.status.in_(ENDED))

    def ended() -> int:
        with resources.db.engine.connect() as connection:
            return connection.scalar(count) or 0

    url = built.postgres.url(built.postgres.create_database())
    work = built.opened.enter_context(open_work(url, resources.storage))
    return Way(parts, lambda: submit_one(resources), ended), Way(parts[:1], work, lambda: 0)


def settings_of(env: Mapping[str, str]) -> Settings:
    """As the processes read them."""
    names = {
        name.removeprefix("FANFARE_").lower(): value
        for name, value in env.items()
        if name.startswith("FANFARE_")
    }
    return Settings(_env_file=None, **names)  # type: ignore[arg-type]


def submit_one(resources: Resources, count: int = IMAGES) -> None:
    """The use case behind the endpoint."""
    pipeline = PIPELINES["thumbnails"]
    request = pipeline.request_schema.model_validate(
        {"message": "a lighthouse", "count": count, "thumbnail_sizes": list(THUMBNAIL_SIZES)}
    )
    submit.submit(resources, pipeline, request, owner="bench", idempotency_key=None, answer=lambda _: {})


def lasting_keys(built: House) -> int:
    """Keys of jobs that don't go by themselves within a quarter of an hour."""
    with built.broker.client(2) as store:
        names = [str(name) for name in store.scan_iter() if not str(name).startswith("_kombu")]
        ttls = {name: store.ttl(name) for name in names if name not in ("fanfare:nodes", "fanfare:models")}
    return sum(ttl > 900 or ttl < 0 for ttl in ttls.values())

"""Entry of the CPU worker and of beat."""

import logging
import secrets
import signal
from pathlib import Path
from typing import Any

from celery import signals
from celery.beat import Service
from celery.schedules import crontab
from celery.utils.dispatch import Signal

from backend import prune, resources, steps, sweep
from backend.celery_app import app
from backend.settings import Settings
from backend.tasks import items, media, notify, prompts, references, reports
from contract.queues import CPU_QUEUES, PRUNE, SWEEP

# imported: that is what registers their tasks
TASK_MODULES = (items, media, notify, prompts, prune, references, reports, steps, sweep)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run_worker(settings: Settings, *, with_beat: bool) -> None:
    """Works until it is told to stop; SIGTERM lets running tasks end."""
    _configure(settings)
    if settings.alive_file:
        _touch_at(signals.heartbeat_sent, settings.alive_file)  # every 2 s while connected to the broker
    arguments = [
        "worker",
        "--pool=prefork",
        f"--concurrency={settings.worker_concurrency}",
        f"--queues={','.join(CPU_QUEUES)}",
        f"--loglevel={settings.log_level}",
        "--without-gossip",
        "--without-mingle",
        f"--hostname=cpu-{secrets.token_hex(3)}@%h",  # RabbitMQ lets no two on a machine have the same
    ]
    app.worker_main([*arguments, "--beat"] if with_beat else arguments)


def run_beat(settings: Settings) -> None:
    """Sends the sweep on time until it is told to stop. Two of them at once do no harm."""
    _configure(settings)
    if settings.alive_file:
        _touch_at(signals.after_task_publish, settings.alive_file)  # each sweep that the broker has taken
    app.conf.beat_max_loop_interval = 1.0  # seconds after which it sees that it is to end
    signals.beat_init.connect(_end_between_two_rounds)
    app.start(["beat", f"--loglevel={settings.log_level}", "--pidfile="])


def _end_between_two_rounds(sender: Service, **_: Any) -> None:  # noqa: ANN401 - Celery's signature
    """Celery's own handler raises SystemExit wherever the signal comes; redis-py turns one that comes while
    it reads into a ValueError, and beat would live on.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sender.stop())


def _configure(settings: Settings) -> None:
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_news)
    app.conf.beat_scheduler = "celery.beat:Scheduler"  # keeps no file: the schedule is fixed
    app.conf.beat_schedule = schedule(settings)


def schedule(settings: Settings) -> dict[str, Any]:
    """What beat sends, and when. Late ones don't pile up."""
    every = settings.sweep_interval_s
    entries: dict[str, Any] = {"sweep": {"task": SWEEP, "schedule": every, "options": {"expires": every * 2}}}
    if settings.prune_at:
        hour, minute = settings.prune_at.split(":")
        at = crontab(hour=hour, minute=minute)
        entries["prune"] = {"task": PRUNE, "schedule": at, "options": {"expires": 3600}}
    return entries


def _is_news(record: logging.LogRecord) -> bool:
    """That the sweep ran once more isn't; what it found, it says itself."""
    return record.levelno != logging.INFO or SWEEP not in record.getMessage()


def _touch_at(signal: Signal, file: Path) -> None:
    """A health check looks at the file's age; that costs less than to ask a worker through the broker."""

    def touch(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
        file.touch()

    signal.connect(touch, weak=False)


@signals.worker_process_init.connect
def _open_resources(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    """Each child opens its own connections, before its first task."""
    resources.current()

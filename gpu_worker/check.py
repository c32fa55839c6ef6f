"""Says what a node would do with these settings, and what to mend."""

import sys
from collections.abc import Iterator

from contract.signals import connect
from gpu_worker import __version__, models
from gpu_worker.broker import Unreachable, check_broker, check_result_store
from gpu_worker.celery_app import create_celery_app
from gpu_worker.log import scrub
from gpu_worker.registry import ENGINES
from gpu_worker.settings import Settings


def check(settings: Settings, no_device: str | None = None) -> int:
    """Prints settings, engines, models and connections; 0 if a node could start, else 1."""
    _say(f"Fanfare node {__version__}")
    for line in _settings(settings):
        _say(f"  {line}")
    found = (no_device, *_engine_faults(settings), *_connection_faults(settings))
    faults = [fault for fault in found if fault]
    for fault in faults:
        _say(f"To mend: {fault}")
    _say("All is well." if not faults else f"{len(faults)} to mend.")
    return 1 if faults else 0


def _settings(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        yield f"{name} = {scrub(str(value), settings.secrets())}"


def _engine_faults(settings: Settings) -> Iterator[str]:
    for name in settings.node_engines:
        if name == models.ENGINE and (faults := list(models.check_models(settings))):
            yield from faults
            continue
        try:
            engine = ENGINES[name].make(settings)
        except Exception as exc:  # noqa: BLE001 - whatever an engine's library raises is what we tell
            yield f"The engine {name} can't be started: {scrub(str(exc), settings.secrets())}"
            continue
        names = ", ".join(card.name for card in engine.models())
        _say(f"  engine {name} on {engine.device.kind} ({engine.device.name}): {names}")
        engine.close()


def _connection_faults(settings: Settings) -> Iterator[str]:
    try:
        check_broker(create_celery_app(settings))
        _say("  broker: reached")
    except Unreachable as exc:
        yield str(exc)
    try:
        check_result_store(connect(settings.result_url), settings.result_url)
        _say("  result store: reached")
    except Unreachable as exc:
        yield str(exc)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")

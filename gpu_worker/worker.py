"""Entry of a GPU node: `fanfare-node`, or `python -m gpu_worker`."""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from gpu_worker import __version__
from gpu_worker.devices import NoDevice
from gpu_worker.launcher import Launcher, Seat
from gpu_worker.log import set_up_log
from gpu_worker.settings import Settings, get_model_settings, get_settings

BAD_SETTINGS = 2  # exit code


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that is asked for, and exits."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command in {"models", "download"}:
            raise SystemExit(_run_without_broker(asked))
        settings = get_settings()
    except ValidationError as exc:
        sys.stderr.write(_explained(exc))
        raise SystemExit(BAD_SETTINGS) from None
    raise SystemExit(_run(asked, settings))


class UnusableSettings(Exception):
    """The settings are valid one by one, but no node can run with them."""


def find_seats(settings: Settings) -> list[Seat]:
    """The processes to start: for each engine one per slot. Raises `UnusableSettings` and `NoDevice`."""
    from gpu_worker.registry import ENGINES

    unknown = [name for name in settings.node_engines if name not in ENGINES]
    if unknown:
        known = ", ".join(ENGINES)
        raise UnusableSettings(f"FANFARE_NODE_ENGINES: no engine {', '.join(unknown)}; there are: {known}")
    if "openai" in settings.node_engines and not settings.can_reach_images_api():
        raise UnusableSettings(
            "The engine openai needs FANFARE_IMAGES_API_KEY, or FANFARE_IMAGES_URL, or both"
        )
    seats = [
        Seat(name, slot)
        for name in dict.fromkeys(settings.node_engines)
        for slot in ENGINES[name].slots(settings)
    ]
    if not seats:
        raise UnusableSettings("FANFARE_NODE_ENGINES: there is no engine, or no device for it")
    return seats


def _run(asked: argparse.Namespace, settings: Settings) -> int:
    # Imported where it is needed: the launcher lives long and shall be small, and `health` is called often
    if asked.command == "health":
        from gpu_worker.health import health

        return health(settings)
    if asked.command == "serve":
        from gpu_worker.node import serve

        return serve(settings, asked.engine, asked.slot)
    set_up_log(settings.log_level, settings.secrets())
    seats, no_device = [], None
    try:
        seats = find_seats(settings)
    except UnusableSettings as exc:
        sys.stderr.write(f"{exc}\n")
        return BAD_SETTINGS
    except NoDevice as exc:
        no_device = str(exc)
    if asked.check or asked.command == "check":
        from gpu_worker.check import check

        return check(settings, no_device)
    if no_device:
        sys.stderr.write(f"{no_device}\n")
        return BAD_SETTINGS
    return Launcher(seats, settings.node_drain_s, allow_download=settings.node_download).run()


def _run_without_broker(asked: argparse.Namespace) -> int:
    from gpu_worker.models import download_models, show_models

    if asked.command == "download":
        return download_models(get_model_settings(), asked.alias, update=asked.update)
    return show_models(get_model_settings(), as_json=asked.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanfare-node",
        description="A GPU node of Fanfare. It joins the queue at FANFARE_BROKER_URL and makes images.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--check", action="store_true", help="the same as `check`")
    commands = parser.add_subparsers(dest="command", metavar="check | health | models | download")
    commands.add_parser("check", help="say what is set and reached, and what to mend")
    commands.add_parser("health", help="exit with 0 if a process of this node works, on this machine")
    models = commands.add_parser("models", help="say which models there are, which are here, and what fits")
    models.add_argument("--json", action="store_true", help="for programs")
    download = commands.add_parser("download", help="fetch models of the catalog from the hub, and pin them")
    download.add_argument("alias", nargs="+")
    download.add_argument("--update", action="store_true", help="the newest commits, not the pinned ones")
    one = commands.add_parser("serve")  # what the launcher starts: no help, not for people
    one.add_argument("engine")
    one.add_argument("slot")
    return parser


def _explained(exc: ValidationError) -> str:
    """Bad settings in plain words; never their values, which may be secrets."""
    lines = []
    for error in exc.errors(include_input=False, include_url=False):
        name = "_".join(str(part) for part in error["loc"])
        setting = name if name.isupper() else f"FANFARE_{name.upper()}"
        lines.append(f"{setting}: {error['msg']}\n" if name else f"{error['msg']}\n")
    return "".join(lines)

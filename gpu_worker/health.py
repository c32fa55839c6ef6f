"""Says whether this node works: for the health checks of containers. Asks nobody but its own processes."""

import sys

from gpu_worker.life_sign import Sign, read_signs
from gpu_worker.settings import Settings


def health(settings: Settings) -> int:
    """0 if a process of this node, on this machine, takes work from the broker; else 1.

    One GPU that has failed doesn't make the others unhealthy: it is named, and /v1/workers lacks it.
    """
    signs = list(read_signs(settings.node_name))
    for sign in signs:
        _say(_told(sign))
    if not signs:
        _say(f"No process of the node {settings.node_name} has given a sign of life on this machine.")
    return 0 if any(sign.fresh for sign in signs) else 1


def _told(sign: Sign) -> str:
    last = "" if sign.fresh else f"no sign of life for {sign.age_s:.0f} s; the last: "
    return f"{sign.process}: {last}{sign.text}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")

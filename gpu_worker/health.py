"""Says whether a node of this name is alive: for the health checks of containers."""

import sys

import redis

from contract.signals import Signals, connect
from gpu_worker.log import scrub
from gpu_worker.settings import Settings


def health(settings: Settings) -> int:
    """0 if a node of this name has announced itself lately, else 1."""
    try:
        nodes = Signals(connect(settings.result_url)).nodes()
    except redis.RedisError as exc:
        _say(f"The result store can't be asked: {scrub(str(exc))}")
        return 1
    ours = [node for node in nodes if node.node.startswith(f"{settings.node_name}/")]
    for node in ours:
        _say(f"{node.node}: {node.state}, {node.running} in hand, {node.done} done, {node.failed} failed")
    if not ours:
        _say(f"No node named {settings.node_name} has announced itself lately.")
    return 0 if ours else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")

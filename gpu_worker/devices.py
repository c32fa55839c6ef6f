"""Slots: what the launcher starts one node process for. Here the devices of a machine are found."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Slot:
    """A place for one node process."""

    name: str  # cpu, remote, cuda0, ...: part of the node's name and prefix of its log
    environment: Mapping[str, str] = field(default_factory=dict)  # pins the process to its device


def on_cpu() -> list[Slot]:
    """One process, on no device in particular."""
    return [Slot("cpu")]


def remote() -> list[Slot]:
    """One process that has the work done elsewhere."""
    return [Slot("remote")]

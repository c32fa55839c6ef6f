"""The plan: which faults come when. A pure function of the seed."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WORKERS = ("worker-1", "worker-2")
NODES = ("node-1", "node-2", "node-3")
APIS = ("api-1", "api-2")
BEATS = ("beat-1",)
BROKER, DATABASE, STORAGE = "broker", "database", "storage"

# What can happen, to whom, and for how long (seconds, at least and at most) it stays so.
KINDS: dict[str, tuple[Sequence[str], float, float]] = {
    "kill worker": (WORKERS, 0.5, 3),
    "kill pool child": (WORKERS, 0, 0),
    "kill node": (NODES, 0.5, 3),
    "kill node child": (NODES, 0, 0),
    "kill api": (APIS, 0.5, 3),
    "kill beat": (BEATS, 0.5, 3),
    "pause database": ((DATABASE,), 2, 6),
    "pause broker": ((BROKER,), 2, 8),
    "restart broker": ((BROKER,), 1, 4),
    "kill broker": ((BROKER,), 0, 2),
    "flush broker": ((BROKER,), 0, 0),
    "cut storage": ((STORAGE,), 2, 8),
    "pause storage": ((STORAGE,), 2, 8),
    "duplicate messages": ((BROKER,), 0, 0),
    "deliver again": ((BROKER,), 0, 0),
    "rolling restart": (("all",), 0.5, 1.5),
}


@dataclass(frozen=True)
class Blow:
    """One fault of the plan."""

    number: int  # from 1
    at_s: float  # from the load's beginning
    kind: str
    target: str
    seconds: float  # how long it lasts


def make_plan(seed: int, count: int, seconds: float) -> list[Blow]:
    """`count` faults, spread over `seconds`. Every kind comes once before one comes twice."""
    dice = random.Random(f"plan {seed}")
    kinds = _dealt(sorted(KINDS), dice.shuffle, count)
    every = seconds / max(count, 1)
    return [_blow(number, kind, (number + dice.uniform(0.2, 0.8)) * every, dice)
            for number, kind in enumerate(kinds)]  # fmt: skip


def _blow(number: int, kind: str, at_s: float, dice: random.Random) -> Blow:
    targets, shortest, longest = KINDS[kind]
    return Blow(
        number + 1, round(at_s, 1), kind, dice.choice(targets), round(dice.uniform(shortest, longest), 1)
    )


def _dealt(cards: Sequence[str], shuffle: Callable[[list[str]], None], count: int) -> list[str]:
    """So many cards, from a deck that is shuffled anew whenever it is used up."""
    dealt: list[str] = []
    while len(dealt) < count:
        deck = list(cards)
        shuffle(deck)
        dealt += deck
    return dealt[:count]

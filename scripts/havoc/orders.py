"""What is asked of the system while it is broken. A pure function of the seed."""

import random
from dataclasses import dataclass
from typing import Any

POISON = "hemlock"
EVENTS = (
    "job.created", "job.started", "job.retried", "job.completed", "job.partially_completed", "job.failed",
    "job.canceled", "image.generated", "image.completed", "image.failed",
)  # fmt: skip
SUBJECTS = ("a lighthouse", "a harbour at dawn", "a bookshop", "an orchard in snow", "a night train")
CANCELED, RETRIED, WITH_WEBHOOK = 0.04, 0.5, 0.5  # shares
POISONED = 100  # one of so many, each time another


@dataclass(frozen=True)
class Order:
    """One job that a client wants, and how the client behaves."""

    number: int  # from 0
    key: str  # its Idempotency-Key
    at_s: float  # from the load's beginning
    message: str
    count: int
    side: int  # pixels
    seed: int
    webhook: bool
    cancels: bool  # once it has begun
    retries: bool  # once, what has failed

    def body(self, receiver: str) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {
            "message": self.message, "count": self.count, "width": self.side, "height": self.side,
            "seed": self.seed, "thumbnail_sizes": [64, 32], "metadata": {"order": str(self.number)},
        }  # fmt: skip
        return body | ({"webhook": {"url": receiver, "events": list(EVENTS)}} if self.webhook else {})


def make_orders(seed: int, jobs: int, count: int, seconds: float) -> list[Order]:
    """So many jobs of `count` images each, evenly spread over `seconds`. A poisoned one has one image."""
    dice = random.Random(f"orders {seed}")
    poisoned = {hundred + dice.randrange(POISONED) for hundred in range(0, jobs, POISONED)}
    return [
        _order(number, seed, count, number * seconds / jobs, dice, poisoned=number in poisoned)
        for number in range(jobs)
    ]


def _order(number: int, seed: int, count: int, at_s: float, dice: random.Random, *, poisoned: bool) -> Order:
    return Order(
        number=number,
        key=f"chaos-{seed}-{number}",
        at_s=at_s,
        message=f"{dice.choice(SUBJECTS)}, order {number}{f' with {POISON}' if poisoned else ''}",
        count=1 if poisoned else count,
        side=dice.choice((64, 96, 128)),
        seed=dice.randrange(2**31),
        webhook=dice.random() < WITH_WEBHOOK,
        cancels=dice.random() < CANCELED,
        retries=dice.random() < RETRIED,
    )

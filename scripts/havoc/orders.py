"""What is asked of the system while it is broken. A pure function of the seed."""

import io
import json
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

POISON = "hemlock"
EVENTS = (
    "job.created", "job.started", "job.retried", "job.completed", "job.partially_completed", "job.failed",
    "job.canceled", "image.generated", "image.completed", "image.failed", "item.completed", "item.failed",
)  # fmt: skip
SUBJECTS = ("a lighthouse", "a harbour at dawn", "a bookshop", "an orchard in snow", "a night train")
CANCELED, RETRIED, WITH_WEBHOOK, UPLOADS, BROKEN = 0.04, 0.5, 0.5, 0.3, 0.3  # shares; the last of uploads
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
    uploads: bool = False  # files instead of a message
    broken: int | None = None  # the one of them that is no image

    @property
    def path(self) -> str:
        """Where it is placed."""
        return "/v1/uploads" if self.uploads else "/v1/thumbnails"

    def request(self, receiver: str) -> dict[str, Any]:
        """What an HTTP client sends; the same each time."""
        body: dict[str, Any] = {"thumbnail_sizes": [64, 32], "metadata": {"order": str(self.number)}}
        if self.webhook:
            body["webhook"] = {"url": receiver, "events": list(EVENTS)}
        if self.uploads:
            files = [("files", (f"{index}.png", self._file(index))) for index in range(self.count)]
            return {"files": files, "data": {"request": json.dumps(body)}}
        asked = {"message": self.message, "count": self.count, "seed": self.seed}
        return {"json": body | asked | {"width": self.side, "height": self.side}}

    def _file(self, index: int) -> bytes:
        if index == self.broken:
            return b"<html>no image</html>"
        pixels = random.Random(f"file {self.seed} {index}").randbytes(self.side * self.side * 3)
        written = io.BytesIO()
        Image.frombytes("RGB", (self.side, self.side), pixels).save(written, "PNG")
        return written.getvalue()


def make_orders(seed: int, jobs: int, count: int, seconds: float) -> list[Order]:
    """So many jobs of `count` images each, evenly spread over `seconds`. A poisoned one has one image."""
    dice = random.Random(f"orders {seed}")
    poisoned = {hundred + dice.randrange(POISONED) for hundred in range(0, jobs, POISONED)}
    return [
        _order(number, seed, count, number * seconds / jobs, dice, poisoned=number in poisoned)
        for number in range(jobs)
    ]


def _order(number: int, seed: int, count: int, at_s: float, dice: random.Random, *, poisoned: bool) -> Order:
    uploads = dice.random() < UPLOADS and not poisoned
    broken = dice.randrange(count) if uploads and count > 1 and dice.random() < BROKEN else None
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
        uploads=uploads,
        broken=broken,
    )

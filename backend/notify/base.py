"""The notifier port: one verb."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True)
class Notification:
    """One event on its way out."""

    id: str  # the same for every attempt, so that a receiver can drop repeats
    type: str  # job.completed, image.generated, ...
    timestamp: datetime  # aware, UTC: when it happened
    data: dict[str, Any]  # the job, as the API shows it
    url: str
    secrets: tuple[str, ...]  # whsec_..., the newest first: each of them signs


class Notifier(Protocol):
    """Delivers notifications."""

    name: str

    def check_target(self, url: str) -> None:
        """Returns if `url` may be a target, else raises `TargetRefused` with a reason for the client."""
        ...

    def send(self, notification: Notification) -> int | None:
        """Delivers once, within a total deadline; the status that the receiver answered, if it was asked.

        Raises `DeliveryFailed` (worth another try), `TargetGone` (410: stop) or `TargetRefused` (the address
        may not be called).
        """
        ...

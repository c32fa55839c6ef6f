"""Why something failed."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """Why a job or a part of it failed, as the client sees it."""

    code: str
    message: str
    retryable: bool

    def as_dict(self) -> dict[str, Any]:
        """As it stands in events and answers."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}

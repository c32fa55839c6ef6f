"""A watch that remembers what it was told, and can call an image off."""

from collections import defaultdict


class Recorder:
    """Remembers progress; says of `unwanted` that nobody wants it after `patience` questions."""

    def __init__(self, unwanted: str = "", patience: int = 0) -> None:
        self.seen: dict[str, list[float]] = defaultdict(list)
        self._unwanted = unwanted
        self._patience = patience
        self._asked = 0

    def progress(self, request_id: str, fraction: float) -> None:
        self.seen[request_id].append(fraction)

    def preview(self, request_id: str, jpeg: bytes) -> None: ...

    def canceled(self, request_id: str) -> bool:
        if request_id != self._unwanted:
            return False
        self._asked += 1
        return self._asked > self._patience

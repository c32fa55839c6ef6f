"""Remembers encoded prompts: users try one prompt with many seeds, and text encoders are large."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from gpu_worker.engines.diffusers.families.base import Embeddings

MAX_BYTES = 256 * 2**20  # of the device's memory


class EmbedCache:
    """The most recently used embeddings, bounded in bytes. For one thread.

    An embedding is the same whether it is remembered or made anew: prompts are encoded one by one.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Embeddings] = OrderedDict()

    def get(self, key: Hashable, encode: Callable[[], Embeddings]) -> Embeddings:
        """What is kept under the key, else what `encode` gives."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = encode()
        if made.bytes() <= self._max_bytes:
            self._kept[key] = made
            self._bytes += made.bytes()
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].bytes()
        return made

    def clear(self) -> None:
        """Gives the memory back."""
        self._kept.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

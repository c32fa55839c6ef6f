"""Encoded prompts that are remembered, within bounds."""

import torch

from gpu_worker.engines.diffusers.embed_cache import EmbedCache
from gpu_worker.engines.diffusers.families.base import Embeddings


def embeddings(count: int) -> Embeddings:
    return Embeddings({"words": torch.zeros(1, count), "lists": [torch.zeros(1)]})


def test_a_prompt_is_encoded_once() -> None:
    cache, encoded = EmbedCache(), list[str]()

    def encode(prompt: str) -> Embeddings:
        encoded.append(prompt)
        return embeddings(10)

    first = cache.get("a", lambda: encode("a"))
    cache.get("b", lambda: encode("b"))

    assert cache.get("a", lambda: encode("a")) is first
    assert encoded == ["a", "b"]


def test_the_least_recently_used_gives_way() -> None:
    cache = EmbedCache(max_bytes=2 * embeddings(10).bytes())
    for name in "ab":
        cache.get(name, lambda: embeddings(10))
    kept = cache.get("a", lambda: embeddings(10))
    cache.get("c", lambda: embeddings(10))

    assert len(cache) == 2
    assert cache.get("a", lambda: embeddings(10)) is kept


def test_what_is_larger_than_all_is_not_kept() -> None:
    cache = EmbedCache(max_bytes=100)
    cache.get("small", lambda: embeddings(10))
    cache.get("large", lambda: embeddings(1000))

    assert len(cache) == 1
    cache.clear()
    assert len(cache) == 0

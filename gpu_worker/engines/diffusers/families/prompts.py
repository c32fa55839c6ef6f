"""Whether a prompt is longer than what a model reads of it."""

from typing import Any


def is_longer(tokenizer: Any, text: str, limit: int) -> bool:  # noqa: ANN401  # no type of transformers' says this
    """Whether the tokenizer makes more than `limit` tokens of it, with those that begin and end a text."""
    read = tokenizer(text, truncation=True, max_length=limit + 1)
    return len(read.input_ids) > limit


def clip_cuts(tokenizer: Any, text: str) -> bool:  # noqa: ANN401  # as above
    """Whether CLIP, with its 77 tokens, doesn't read it to the end."""
    return is_longer(tokenizer, text, tokenizer.model_max_length)

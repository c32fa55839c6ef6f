"""Prompts that were encoded one by one, put together for a batch."""

from collections.abc import Mapping, Sequence

import torch

from gpu_worker.engines.diffusers.families.base import Arguments, Embedding


def collate(prompts: Sequence[Mapping[str, Embedding]]) -> Arguments:
    """By argument: lists joined, tensors stacked, and padded with zeros where their lengths differ."""
    return {name: joined([prompt[name] for prompt in prompts]) for name in prompts[0]}


def joined(rows: Sequence[Embedding]) -> Embedding:
    """One argument of all rows."""
    tensors = [row for row in rows if isinstance(row, torch.Tensor)]
    if not tensors:
        return [tensor for row in rows for tensor in row]
    longest = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([padded(tensor, longest) for tensor in tensors])


def padded(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """(1, n, ...) -> (1, length, ...). A mask is padded with "not to be read"."""
    if tensor.shape[1] == length:
        return tensor
    rest = tensor.new_zeros(tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, rest], dim=1)

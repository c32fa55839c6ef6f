"""torch.compile, by block: one small graph for all blocks of a kind. The whole model would take minutes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
import torch._dynamo

Backend = str | Callable[..., Any]  # of torch.compile

# torch's own limit is 8, and what comes after it silently runs as it is. A UNet's blocks have three widths:
# nine graphs with and without guidance alone, and LoRAs double them.
_GRAPHS: Final = 64

# Those of diffusers that don't say it themselves.
_BLOCKS: Final = {
    "SD3Transformer2DModel": ("JointTransformerBlock",),
    "SanaTransformer2DModel": ("SanaTransformerBlock",),
}


def compile_blocks(denoiser: torch.nn.Module, backend: Backend = "inductor") -> bool:
    """Has the repeated blocks compiled when they next run; False: it isn't known which they are.

    Batch 1 gets a graph of its own. The second size of batch makes one that takes any other, so that a
    warm-up needs batches 1 and 2. Sizes of images, too, are learned with the second one.
    """
    blocks = list(_repeated(denoiser))
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    for block in blocks:
        block.compile(backend=backend, dynamic=None)
    return bool(blocks)


def uncompile(denoiser: torch.nn.Module) -> None:
    """The blocks run as they are, as before."""
    for block in _repeated(denoiser):
        block._compiled_call_impl = None


def _repeated(denoiser: torch.nn.Module) -> Iterator[torch.nn.Module]:
    own: Sequence[str] = getattr(denoiser, "_repeated_blocks", None) or ()
    names = own or _BLOCKS.get(type(denoiser).__name__, ())
    return (module for module in denoiser.modules() if type(module).__name__ in names)

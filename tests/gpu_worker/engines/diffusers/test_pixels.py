"""From latents to bytes."""

import torch

from gpu_worker.engines.diffusers.families.pixels import decoded, to_bytes


class Overflowing:
    """An autoencoder whose activations are too large for half precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.config: dict[str, bool] = {}

    def to(self, dtype: torch.dtype) -> "Overflowing":
        self.dtype = dtype
        return self

    def decode(self, latents: torch.Tensor, *, return_dict: bool) -> tuple[torch.Tensor]:
        return ((latents * 60_000) / 60_000,)


def test_what_overflows_in_half_precision_is_decoded_in_full() -> None:
    vae = Overflowing(torch.float16)
    latents = torch.full((1, 3, 2, 2), 2.0, dtype=torch.float16)

    pictures = decoded(vae, latents)

    assert pictures.tolist() == torch.full((1, 3, 2, 2), 2.0).tolist()
    assert vae.dtype == torch.float16


def test_bytes_are_rounded_and_cut() -> None:
    pictures = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)

    assert to_bytes(pictures)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]

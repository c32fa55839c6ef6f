"""Small pictures of unfinished images: a linear map from latents to colours, learned from the first image."""

import io

import torch
from PIL import Image
from torch.nn import functional

LONGEST_SIDE = 256  # pixels
JPEG_QUALITY = 80


class LatentPreview:
    """What one model's latents look like. Cheap: a fit takes about 10 ms, a picture less than 1."""

    def __init__(self) -> None:
        self._map: torch.Tensor | None = None  # (channels + 1, 3), float32, on the CPU
        self._spread = 1.0

    @property
    def ready(self) -> bool:
        """Whether an image was learned from."""
        return self._map is not None

    def fit(self, latents: torch.Tensor, pixels: torch.Tensor) -> None:
        """Learns from the latents (channels, h, w) of a finished image, and its pixels (H, W, 3), uint8.

        What can't be learned from (an image of one colour has nothing to say, too) is left alone.
        """
        finished = latents.detach().float().cpu()
        if not torch.isfinite(finished).all() or not finished.std() > 0:
            return
        picture = pixels.detach().cpu().permute(2, 0, 1).float()[None]
        colours = functional.adaptive_avg_pool2d(picture, (finished.shape[1], finished.shape[2]))[0] / 255
        self._map = torch.linalg.lstsq(by_place(finished), colours.flatten(1).T, driver="gelsd").solution
        self._spread = float(finished.std())

    def jpeg(self, latents: torch.Tensor, longest_side: int = LONGEST_SIDE) -> bytes:
        """A JPEG of the latents (channels, h, w) of an unfinished image. Only when `ready`."""
        assert self._map is not None, "nothing was learned yet"
        height, width = latents.shape[1:]
        colours = (by_place(self._calmed(latents)) @ self._map).clamp(0, 1) * 255
        picture = Image.fromarray(colours.round().to(torch.uint8).view(height, width, 3).numpy())
        scale = longest_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return encoded(picture.resize(size, Image.Resampling.BICUBIC))

    def _calmed(self, latents: torch.Tensor) -> torch.Tensor:
        """Unfinished latents are up to 15 times as large as finished ones, with some schedulers."""
        noisy = torch.nan_to_num(latents.detach().float().cpu())
        return noisy * min(1.0, self._spread / max(float(noisy.std()), 1e-6))


def by_place(latents: torch.Tensor) -> torch.Tensor:
    """(channels, h, w) -> (h * w, channels + 1), the last of them 1 everywhere."""
    rows = latents.flatten(1).T
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()

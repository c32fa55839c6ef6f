"""What a page shows until the picture is there: its blurhash and its colour."""

import math
from typing import cast

import numpy as np
from PIL import Image

from backend.images.blurhash_encoding import encode
from backend.images.thumbnails import fit

PLACEHOLDER_SIDE = 32  # pixels: a blurhash holds no more detail
PALETTE_SIDE = 64  # pixels
SETTLED = PALETTE_SIDE**2 // 50  # of them: once no more change their colour, the palette is good enough
BLURHASH_COMPONENTS = 14  # about, x times y


def blurhash_of(image: Image.Image) -> str:
    """The picture in some 30 characters (blurha.sh); what is transparent has the dominant colour."""
    small = image.resize(fit(image.size, PLACEHOLDER_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    if small.mode == "RGBA":
        ground = Image.new("RGBA", small.size, dominant_color(image))
        small = Image.alpha_composite(ground, small)
    across, down = _components(image.width / image.height)
    return encode(np.asarray(small.convert("RGB")), across, down)


def _components(aspect: float) -> tuple[int, int]:
    """More detail along the longer side."""
    across, down = (math.sqrt(BLURHASH_COMPONENTS * ratio) for ratio in (aspect, 1 / aspect))
    return min(max(round(across), 2), 7), min(max(round(down), 2), 7)


def dominant_color(image: Image.Image) -> str:
    """The colour that one would name: "#rrggbb". A vivid one counts for more than a grey one."""
    small = image.resize(fit(image.size, PALETTE_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    visible = _visible_pixels(small.convert("RGBA"))
    if not visible:
        return "#ffffff"
    strip = Image.frombytes("RGB", (len(visible) // 3, 1), visible)
    palette = strip.quantize(12, Image.Quantize.MEDIANCUT, kmeans=SETTLED)
    colours = cast("list[tuple[int, tuple[int, int, int]]]", palette.convert("RGB").getcolors())
    _, (red, green, blue) = max(sorted(colours), key=_weight)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _visible_pixels(image: Image.Image) -> bytes:
    pixels = np.asarray(image).reshape(-1, 4)
    return pixels[pixels[:, 3] >= 128, :3].tobytes()


def _weight(counted: tuple[int, tuple[int, int, int]]) -> float:
    """How much of it there is, times how vivid it is."""
    count, colour = counted
    vividness = (max(colour) - min(colour)) / 255
    return count * (0.1 + vividness)

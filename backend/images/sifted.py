"""What is known of a file before it is decoded."""

from dataclasses import dataclass
from typing import Final

MAX_PARTS: Final = 100_000  # of one file: chunks, segments, frames
MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024  # those of printing presses take up to 3 MB
MAX_EXIF_BYTES: Final = 1024 * 1024


class Unsound(ValueError):
    """The file contradicts itself, ends too soon, or is of a kind that is not taken."""


@dataclass(frozen=True)
class Sifted:
    """A file that holds nothing but its first picture, and what was beside it."""

    fmt: str  # as Pillow names it
    data: bytes  # to be decoded
    width: int  # as the header claims, before it is turned upright
    height: int
    lossy: bool = False
    profile: bytes | None = None  # ICC
    exif: bytes | None = None
    gamma: float | None = None  # where it is not what sRGB has, and no profile says more
    pixels: int = 0  # what the decoder makes on its way, where that is more than width times height
    box: tuple[int, int, int, int] | None = None  # of the picture on its screen, where it is smaller

"""The benchmark `thumbnails`: ours, against opening the original anew for each size, and against libvips.

All write WebP of the same quality and effort, in one thread.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from backend.images import make_thumbnails, prepare
from backend.images.opening import read
from backend.images.thumbnails import WEBP_OPTIONS
from scripts.benchmarks.figures import Figures, say
from scripts.benchmarks.rounds import Measured, Way, in_turns, times_as_fast

ABOUT = "thumbnails/s by format and size, against Pillow opening the original for each, and libvips"

SIZES: Final = (512, 256, 128)
FORMATS: Final[Mapping[str, Mapping[str, int]]] = {
    "WEBP": {"quality": 90, "method": 4},
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 6},
}
MAX_PIXELS: Final = 100_000_000
OURS, WHOLE = "ours", "ours, with blurhash and colour"
ANEW, VIPS = "opened anew for each size", "libvips"
COMPARED: Final = ((OURS, ANEW), (OURS, VIPS), (WHOLE, ANEW))

Make = Callable[[bytes], object]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--rounds", type=int, default=5, help="side by side (default: 5)")
    parser.add_argument("--repeat", type=int, default=4, help="originals in a round (default: 4)")
    parser.add_argument(
        "--sides", default="1024,2048", metavar="A,B", help="of the originals, in pixels (default: 1024,2048)"
    )


def measure(asked: argparse.Namespace, figures: Figures) -> None:
    """Adds the figures of each format at each size."""
    makers: dict[str, Make] = {OURS: _ours, WHOLE: _whole, ANEW: _anew}
    if importlib.util.find_spec("pyvips"):
        makers[VIPS] = _vips_maker()
    else:
        say("libvips is left out: pyvips is not installed (pip install 'pyvips[binary]')")
    for side in (int(one) for one in asked.sides.split(",")):
        picture = photo(side)
        for fmt, options in FORMATS.items():
            data = _encode(picture, fmt, options)
            say(f"{fmt} {side}x{side}, {len(data) // 1024} KiB")
            _tell(figures, f"{fmt} {side}x{side}", _race(makers, data, asked.rounds, asked.repeat))


def photo(side: int) -> Image.Image:
    """What compresses and decodes as photographs do: shapes of all sizes, and a little noise."""
    random = np.random.default_rng(17)
    pixels = np.zeros((side, side, 3), np.float32)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        coarse = random.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        layer = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, np.float32) - 128) * cells**-0.5
    pixels += random.normal(0, 2, pixels.shape)
    return Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8))


def _encode(picture: Image.Image, fmt: str, options: Mapping[str, int]) -> bytes:
    out = BytesIO()
    picture.save(out, fmt, **options)
    return out.getvalue()


def _race(makers: Mapping[str, Make], data: bytes, rounds: int, repeat: int) -> dict[str, Measured]:
    def repeated(make: Make) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeat):
                make(data)

        return run

    for make in makers.values():
        make(data)
    ways = {
        name: Way(repeat * len(SIZES), repeated(make), time.process_time) for name, make in makers.items()
    }
    return in_turns(ways, rounds, of="a thumbnail")


def _tell(figures: Figures, what: str, found: Mapping[str, Measured]) -> None:
    for way in (ANEW, VIPS):
        if way in found:
            figures.add(f"{what}: {way}", found[way].rate, "thumbs/s")
    compared = [(way, against) for way, against in COMPARED if against in found]
    for way, against in compared:
        rate = found[way].rate
        baseline = rate / times_as_fast(found[way], found[against])
        figures.add(f"{what}: {way}, against {against}", rate, "thumbs/s", baseline=baseline)
    for way, against in compared:
        cost, base = (1000 * statistics.median(found[name].cpu) for name in (way, against))
        figures.add(f"{what}: CPU time of a thumbnail, {way}, against {against}", cost, "ms", baseline=base)


# -- the ways ------------------------------------------------------------------------------------------


def _ours(data: bytes) -> object:
    original = read(data, max_pixels=MAX_PIXELS, at_least=2 * max(SIZES))
    return make_thumbnails(original.image, SIZES, "webp")


def _whole(data: bytes) -> object:
    return prepare(data, SIZES, "webp", MAX_PIXELS)


def _anew(data: bytes) -> Sequence[bytes]:
    """As it is usually written."""
    made = []
    for size in SIZES:
        with Image.open(BytesIO(data)) as image:
            small = image.convert("RGB")
            small.thumbnail((size, size), Image.Resampling.LANCZOS)
            made.append(_encode(small, "WEBP", WEBP_OPTIONS))
    return made


def _vips_maker() -> Make:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read once, when the library is loaded
    import pyvips  # type: ignore[import-untyped]

    pyvips.cache_set_max(0)  # it would remember what it has made

    def make(data: bytes) -> object:
        options = {"Q": WEBP_OPTIONS["quality"], "effort": WEBP_OPTIONS["method"]}
        small = [pyvips.Image.thumbnail_buffer(data, size, height=size, size="down") for size in SIZES]
        return [one.webpsave_buffer(**options) for one in small]

    return make

"""Hundreds of files that nobody should send: in a process of its own, so that its memory and end are seen."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.backend.images.corpus import FORMATS, corpus, srgb
from tests.backend.images.samples import encode

ROOT = Path(__file__).parents[3]
MAX_PIXELS = 10_000_000
SECONDS = 10.0  # of processor time, for any one of them
BYTES_PER_PIXEL = 40  # at most, of those that may be in a picture; the docs say so
BYTES_PER_BYTE = 4  # and of those in the file
ROUNDING = 16 * 1024**2  # bytes: what the allocator keeps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

Trials = Mapping[str, dict[str, Any]]


def tried(folder: Path, files: Mapping[str, bytes], max_pixels: int) -> Trials:
    """How each ended, by its name."""
    names = {f"{number:03}": name for number, name in enumerate(files)}
    for number, name in names.items():
        (folder / number).write_bytes(files[name])
    command = [sys.executable, "-m", "tests.backend.images.trial", str(max_pixels)]
    done = subprocess.run(
        [*command, *(str(folder / number) for number in names)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    trials = {names[line["name"]]: line for line in lines}
    assert done.returncode == 0, (done.returncode, list(names.values())[len(lines)], done.stderr[-2000:])
    return trials


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return corpus()


@pytest.fixture(scope="module")
def trials(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return tried(tmp_path_factory.mktemp("corpus"), files, MAX_PIXELS)


def test_there_are_many(trials: Trials, files: dict[str, bytes]) -> None:
    assert set(trials) == set(files)
    assert len(trials) >= 400


def test_each_is_unreadable_or_a_clean_picture(trials: Trials) -> None:
    escaped = {name: one["outcome"] for name, one in trials.items() if "escaped" in one["outcome"]}
    dirty = {name: one["markers"] for name, one in trials.items() if one["markers"]}

    assert escaped == {}
    assert dirty == {}


def test_none_takes_long(trials: Trials) -> None:
    assert {name: one["seconds"] for name, one in trials.items() if one["seconds"] > SECONDS} == {}


def test_all_together_take_no_more_memory_than_one_good_picture_may(
    trials: Trials, files: dict[str, bytes]
) -> None:
    largest_file = max(len(data) for data in files.values())

    peak = max(one["peak"] for one in trials.values())

    assert peak < MAX_PIXELS * BYTES_PER_PIXEL + largest_file * BYTES_PER_BYTE + ROUNDING


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_only_badly_dressed_is_a_picture(trials: Trials, fmt: str) -> None:
    names = ["all-metadata", "icc-loop", "icc-zeros", "exif-loop", "trailing", "and-html", "and-zip"]
    for name in [f"{fmt}-{name}" for name in names] + [
        "png-ztxt-bomb", "png-iccp-bomb", "png-frames", "gif-frames", "webp-frames", "cmyk-without-profile"
    ]:  # fmt: skip
        is_refused = fmt == "AVIF" and ("trailing" in name or "-and-" in name)  # it is boxes to its very end
        if name in trials and not is_refused:
            assert trials[name]["outcome"].startswith("image/"), name


@pytest.mark.parametrize(
    "name",
    [
        "png-13000x13000", "png-9400x9400", "jpeg-6000x6000", "jpeg-65535x65535", "gif-20000x20000",
        "gif-frame-20000x20000", "avif-20000x20000", "avif-larger-than-it-claims", "webp-canvas-13000-False",
        "webp-animated-canvas-13000", "webp-vp8l-16384x16384", "jpeg-300-scans", "jpeg-20000-scans",
        "jpeg-many-exif", "jpeg-many-comments", "png-many-empty-idat", "png-0x0", "jpeg-0x0",
        "jpeg-two-frames", "a-svg", "a-html", "a-eps", "another-TIFF", "another-EPS",
        "magic-of-png-then-html", "TIFF-huge",
    ],
)  # fmt: skip
def test_bombs_and_other_kinds_are_refused(trials: Trials, name: str) -> None:
    assert trials[name]["outcome"] == "unreadable"


# -- the largest that is taken ----------------------------------------------------------------------------


def test_the_largest_pictures_keep_within_the_bound(tmp_path: Path) -> None:
    size = 2000, 1500
    photo = Image.effect_noise((250, 188), 80).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    clear = photo.copy()
    clear.putalpha(Image.linear_gradient("L").resize(size))
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, Any] = {"exif": exif, "icc_profile": srgb()}
    files = {
        "png": encode(clear, "PNG", compress_level=1, **more),
        "grey": encode(clear.convert("LA"), "PNG", compress_level=1, **more),
        "jpeg": encode(photo, "JPEG", quality=95, progressive=True, subsampling=0, **more),
        "cmyk": encode(photo.convert("CMYK"), "JPEG", quality=95, progressive=True, subsampling=0, exif=exif),
        "webp": encode(clear, "WEBP", method=0, **more),
        "lossless": encode(Image.new("RGBA", size, (9, 8, 7, 99)), "WEBP", lossless=True, method=0, **more),
        "avif": encode(clear, "AVIF", speed=10, **more),
        "gif": encode(photo.quantize(256), "GIF"),
    }
    for name, data in files.items():
        (trial,) = tried(tmp_path, {name: data}, size[0] * size[1]).values()

        assert trial["outcome"].startswith("image/"), trial
        assert trial["peak"] < size[0] * size[1] * BYTES_PER_PIXEL + len(data) * BYTES_PER_BYTE + ROUNDING, (
            name
        )

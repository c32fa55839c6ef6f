"""Optimizes files, in a process of its own, and tells of each how it ended, its time and its memory.

python -m tests.backend.images.trial MAX_PIXELS FILE...
"""

import json
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from backend.errors import ImageUnreadable
from backend.images import optimize
from tests.backend.images.corpus import MARKERS
from tests.backend.images.samples import encode, quarters

SECONDS_EACH = 30  # after which the process is ended; a busy machine needs its time
ADDRESS_SPACE = 1024**3  # bytes, beyond what the process has when it begins


def main() -> None:
    """One line of JSON for each file."""
    warnings.simplefilter("ignore")  # Pillow says what it finds odd
    max_pixels, files = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    for fmt in ("PNG", "JPEG", "WEBP", "AVIF", "GIF"):  # what is loaded once is no file's doing
        optimize(encode(quarters(), fmt), max_pixels=max_pixels, boxes=[(200, 200)])
    limit = _memory("VmSize") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    base = _memory("VmRSS")
    for file in files:
        signal.alarm(SECONDS_EACH)
        began = time.process_time()
        outcome, found = _try(file.read_bytes(), max_pixels)
        told = {
            "name": file.name,
            "outcome": outcome,
            "markers": found,
            "seconds": time.process_time() - began,
            "peak": _memory("VmHWM") - base,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def _try(data: bytes, max_pixels: int) -> tuple[str, list[str]]:
    try:
        made = optimize(data, max_pixels=max_pixels, boxes=[(200, 200)])
    except ImageUnreadable:
        return "unreadable", []
    except BaseException as exc:  # noqa: BLE001 - what it is, is what is told
        return f"escaped: {exc!r}", []
    files = [made.data, *(one.data for one in made.thumbnails)]
    return made.content_type, [repr(marker) for marker in MARKERS if any(marker in file for file in files)]


def _memory(name: str) -> int:
    """In bytes. Not by `getrusage`, whose peak is also that of who started this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()

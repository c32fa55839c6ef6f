"""Headers of safetensors files: which tensors there are, of which type and shape. Nothing else is read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MAX_HEADER_BYTES: Final = 25_000_000  # the largest published ones have less than 1 MB
LENGTH_BYTES: Final = 8

# Bits of one number.
BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})  # what a model's type converts


class BadHeader(Exception):
    """The file is no whole safetensors file; the text says why."""


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes they take in the file."""
        return self.numbers * BITS[self.dtype] // 8


def read_header(path: Path) -> dict[str, Tensor]:
    """All tensors of the file, by name. Raises `BadHeader`, also where the file is shorter than it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
                raise BadHeader("is cut off within its header, or no safetensors file")
            if length > MAX_HEADER_BYTES:
                raise BadHeader(f"has a header of {length} bytes; {MAX_HEADER_BYTES} are allowed")
            raw = file.read(length)
    except OSError as exc:
        raise BadHeader(f"can't be read: {exc.strerror or 'unknown'}") from exc
    return _parsed(raw, size - LENGTH_BYTES - length)


def _parsed(raw: bytes, data_bytes: int) -> dict[str, Tensor]:
    try:
        table = json.loads(raw)
        table.pop("__metadata__", None)
        found = {name: _tensor(entry) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise BadHeader("has a header that can't be understood") from exc
    end = max((stop for _, stop in found.values()), default=0)
    if end > data_bytes:
        raise BadHeader(f"is cut off: {end - data_bytes} bytes are missing")
    if end < data_bytes:
        raise BadHeader("holds more than its header says")
    return {name: tensor for name, (tensor, _) in found.items()}


def _tensor(entry: dict[str, Any]) -> tuple[Tensor, int]:
    """What is said of one tensor, and where its data end."""
    shape = tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise ValueError
    tensor = Tensor(entry["dtype"], shape)
    if stop - start != tensor.bytes:
        raise ValueError
    return tensor, stop

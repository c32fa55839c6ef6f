"""The order in which a line of mixed directions is drawn: Unicode's algorithm for one paragraph.

Explicit embeddings and isolates never get here (titles are cleaned of control characters), so rules X1-X8
fall away; the rest is rules P2-P3, W1-W7, N1-N2, I1-I2, L1-L2 of UAX #9.
"""

import unicodedata
from itertools import groupby

_STRONG = ("L", "R", "AL")
_NEUTRAL = ("B", "S", "WS", "ON")


def direction(text: str) -> int:
    """The level of the paragraph: 1 if its first strong character runs from the right, else 0."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in _STRONG:
            return 0 if kind == "L" else 1
    return 0


def levels(text: str, base: int) -> list[int]:
    """The embedding level of each character: odd ones run from the right."""
    kinds = [unicodedata.bidirectional(char) or "L" for char in text]
    edge = "R" if base else "L"
    _resolve_weak(kinds, edge)
    _resolve_neutral(kinds, edge)
    result = [base + _step(kind, base) for kind in kinds]
    for index in range(len(text) - 1, -1, -1):  # L1: spaces at the end belong to the paragraph
        if unicodedata.bidirectional(text[index]) not in ("WS", "S", "B"):
            break
        result[index] = base
    return result


def visual_runs(level: list[int]) -> list[tuple[int, int, int]]:
    """Runs of equal level as (start, end, level), in the order in which they are drawn from the left."""
    runs: list[tuple[int, int, int]] = []
    for value, group in groupby(enumerate(level), key=lambda item: item[1]):
        indexes = [index for index, _ in group]
        runs.append((indexes[0], indexes[-1] + 1, value))
    for lowest in range(max(level, default=0), 0, -1):  # L2
        runs = _reversed_where(runs, lowest)
    return runs


def _reversed_where(runs: list[tuple[int, int, int]], lowest: int) -> list[tuple[int, int, int]]:
    result: list[tuple[int, int, int]] = []
    for high, group in groupby(runs, key=lambda run: run[2] >= lowest):
        part = list(group)
        result.extend(reversed(part) if high else part)
    return result


def _resolve_weak(kinds: list[str], edge: str) -> None:
    last, strong = edge, edge
    for index, kind in enumerate(kinds):  # W1-W3
        if kind == "NSM":
            kinds[index] = last
        elif kind == "EN" and strong == "AL":
            kinds[index] = "AN"
        last = kinds[index]
        if kind in _STRONG:
            strong = kind
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]
    _join_numbers(kinds)
    strong = edge
    for index, kind in enumerate(kinds):  # W7
        if kind == "EN" and strong == "L":
            kinds[index] = "L"
        elif kind in _STRONG:
            strong = kind


def _join_numbers(kinds: list[str]) -> None:
    for index in range(1, len(kinds) - 1):  # W4
        before, kind, after = kinds[index - 1 : index + 2]
        if before == after and (
            (kind == "CS" and before in ("EN", "AN")) or (kind == "ES" and before == "EN")
        ):
            kinds[index] = before
    for start, end, _ in _runs(kinds, ("ET", "BN")):  # W5
        if (start and kinds[start - 1] == "EN") or (end < len(kinds) and kinds[end] == "EN"):
            kinds[start:end] = ["EN"] * (end - start)
    kinds[:] = ["ON" if kind in ("ES", "ET", "CS", "BN") else kind for kind in kinds]  # W6


def _resolve_neutral(kinds: list[str], edge: str) -> None:
    for start, end, _ in _runs(kinds, _NEUTRAL):  # N1, N2
        before = _side(kinds[start - 1]) if start else edge
        after = _side(kinds[end]) if end < len(kinds) else edge
        kinds[start:end] = [before if before == after else edge] * (end - start)


def _side(kind: str) -> str:
    return "L" if kind == "L" else "R"


def _runs(kinds: list[str], wanted: tuple[str, ...]) -> list[tuple[int, int, bool]]:
    result, start = [], 0
    for match, group in groupby(kinds, key=lambda kind: kind in wanted):
        length = len(list(group))
        if match:
            result.append((start, start + length, True))
        start += length
    return result


def _step(kind: str, base: int) -> int:
    """I1, I2: how far above the paragraph's level a character stands."""
    if kind == "L":
        return base % 2
    if kind == "R":
        return 1 - base % 2
    return 2 - base % 2

"""A whole run in several processes: each begins with slow tests, and none is lost."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parallel import deal


@dataclass(frozen=True)
class Item:
    """As much of a test as is looked at."""

    nodeid: str

    @property
    def path(self) -> Path:
        return Path(self.nodeid.partition("::")[0])


def items(file: str, count: int) -> list[Any]:
    return [Item(f"{file}::test_{number}") for number in range(count)]


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_each_share_begins_with_slow_tests_and_files_stay_whole(processes: int) -> None:
    files = [items(f"tests/acceptance/test_{number}.py", 3) for number in range(processes)]
    collected = [*itertools.chain(*files), *items("tests/test_quick.py", 100)]

    dealt = deal(collected, processes)

    assert sorted(item.nodeid for item in dealt) == sorted(item.nodeid for item in collected)
    starts = [dealt.index(file[0]) for file in files]
    for start, file in zip(starts, files, strict=True):
        assert dealt[start : start + 3] == file
    share = len(collected) / processes
    assert starts == pytest.approx([number * share for number in range(processes)], abs=processes)


def test_slow_tests_alone_are_dealt_whole() -> None:
    collected = [*items("tests/acceptance/test_a.py", 9), *items("tests/acceptance/test_b.py", 1)]
    assert deal(collected, 3) == collected

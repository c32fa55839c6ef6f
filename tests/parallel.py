"""How a whole run is shared out among processes (pytest-xdist): how many, and what each begins with."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

MOST_PROCESSES = 8  # each takes some 0.7 GB: torch, and what its tests start

# These wait long, for processes that they start. Whoever comes to them last is waited for by all the others.
SLOW = (
    "tests/acceptance/",
    "tests/scripts/",
    "tests/gpu_worker/test_node.py",
    "tests/backend/api/test_fuzz.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means here: three processes for two cores, because tests wait as much as they compute.

    None where they would only be in the way: files named one by one are soon collected, and a debugger or
    `-s` needs the terminal.
    """
    alone = config.getoption("usepdb") or config.getoption("trace") or config.getoption("capture") == "no"
    if alone or all(Path(argument.partition("::")[0]).is_file() for argument in config.args):
        return 0
    return min(max(3 * (os.cpu_count() or 1) // 2, 2), MOST_PROCESSES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Lets each process begin with slow tests. Every process finds the same order."""
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes > 1:
        items[:] = deal(items, processes)


def deal(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """The order in which each of the even shares begins with slow tests.

    A slow file is in one share, so that what it starts is started once. `--dist worksteal` moves tests from
    the ends of the shares, which are quick ones, to processes that are done.
    """
    slow = [item for item in items if item.nodeid.startswith(SLOW)]
    quick = iter([item for item in items if not item.nodeid.startswith(SLOW)])
    files = [list(group) for _, group in itertools.groupby(slow, lambda item: item.path)]
    dealt: list[pytest.Item] = []
    for number, end in enumerate(_ends(len(items), processes)):
        dealt += itertools.chain(*files[number::processes])
        dealt += itertools.islice(quick, max(end - len(dealt), 0))
    return [*dealt, *quick]


def _ends(count: int, shares: int) -> Iterator[int]:
    """Where each share ends, as xdist divides them."""
    end = 0
    for left in range(shares, 0, -1):
        end += (count - end) // left
        yield end

"""Memory of the machine: what a container may use counts, not what there is."""

from pathlib import Path

import pytest

from gpu_worker.engines.diffusers import machine_memory

GB = 10**9
KIB = 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 64 GB, of which 40 are free, and a process in no group with a limit."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {64 * GB // KIB} kB\nMemAvailable: {40 * GB // KIB} kB\n")
    write(tmp_path / "proc/self/status", f"Name: node\nVmRSS: {3 * GB // KIB} kB\n")
    write(
        tmp_path / "proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/a1b2\n0::/user.slice/node.scope\n"
    )
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def about(size: int) -> object:
    return pytest.approx(size, abs=KIB)


def test_of_a_machine(root: Path) -> None:
    assert machine_memory.total(root) == about(64 * GB)
    assert machine_memory.free(root) == about(40 * GB)
    assert machine_memory.used(root) == about(3 * GB)


@pytest.mark.parametrize("group", ["", "user.slice", "user.slice/node.scope"])
def test_of_a_container(root: Path, group: str) -> None:
    folder = root / "sys/fs/cgroup" / group
    write(folder / "memory.max", f"{16 * GB}\n")
    write(folder / "memory.current", f"{10 * GB}\n")
    write(folder / "memory.stat", f"anon {6 * GB}\ninactive_file {4 * GB}\n")

    assert machine_memory.total(root) == 16 * GB
    assert machine_memory.free(root) == 10 * GB


@pytest.mark.parametrize("group", ["", "docker/a1b2"])
def test_of_an_older_container(root: Path, group: str) -> None:
    folder = root / "sys/fs/cgroup/memory" / group
    write(folder / "memory.limit_in_bytes", f"{16 * GB}\n")
    write(folder / "memory.usage_in_bytes", f"{10 * GB}\n")
    write(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {1 * GB}\n")

    assert machine_memory.total(root) == 16 * GB
    assert machine_memory.free(root) == 7 * GB


def test_no_limit_is_none(root: Path) -> None:
    write(root / "sys/fs/cgroup/memory.max", "max\n")
    write(root / "sys/fs/cgroup/memory.current", f"{50 * GB}\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{50 * GB}\n")

    assert machine_memory.total(root) == about(64 * GB)
    assert machine_memory.free(root) == about(40 * GB)


def test_over_its_limit_nothing_is_free(root: Path) -> None:
    write(root / "sys/fs/cgroup/memory.max", f"{1 * GB}\n")
    write(root / "sys/fs/cgroup/memory.current", f"{2 * GB}\n")

    assert machine_memory.free(root) == 0


def test_other_systems_do_not_tell(tmp_path: Path) -> None:
    assert machine_memory.total(tmp_path) is None
    assert machine_memory.free(tmp_path) is None
    assert machine_memory.used(tmp_path) is None

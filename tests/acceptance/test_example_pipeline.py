"""The pipeline in CONTRIBUTING.md: two blocks, put where it says, and nothing else touched."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.acceptance.stack import stack
from tests.services import RedisServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILE, LINES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The source tree with the example in it."""
    folder = tmp_path / "house"
    for package in ("contract", "backend", "gpu_worker"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "backend/pipelines/reviews.py").write_text(FILE)
    registry = folder / "backend/pipelines/__init__.py"
    module, entry = LINES.splitlines()
    before, opening, after = registry.read_text().partition("PIPELINES: dict[str, Pipeline] = {\n")
    registry.write_text(f"{module}\n{before}{opening}{entry}\n{after}")
    return folder


def test_it_works_by_its_file_and_its_line(copied: Path, own_redis: RedisServer, tmp_path: Path) -> None:
    # Given a system of this code
    env = {"FANFARE_BROKER_URL": own_redis.url(), "FANFARE_LLM": "template"}
    with stack(tmp_path, **env) as system:
        system.source = copied
        system.start("api")
        system.start("worker")
        system.wait_until_ready()
        # When such an event is told
        event = {"type": "review.received", "data": {"text": "The parcel came late.", "stars": 2}}
        answer = httpx.post(f"{system.url}/v1/events", json=event, timeout=30)
        assert answer.status_code == 202, answer.text
        system.ended(answer.json()["event_id"])
        # Then its steps are done
        done = httpx.get(f"{system.url}{answer.headers['Location']}", timeout=30).json()
        assert done["status"] == "completed", done
        assert done["task_context"] == {
            "read": {"about": "delivery", "summary": "The parcel came late."},
            "decide": {"show": False, "about": "delivery"},
        }
        assert done["output"] == done["task_context"]["decide"]
        # And what it refuses says so, and what is no such event is refused
        linked = httpx.post(
            f"{system.url}/v1/events", json=event | {"data": {"text": "see http://x.test", "stars": 5}}
        ).json()
        assert system.ended(linked["event_id"])["error"]["message"] == "Reviews with links are not taken."
        wrong = httpx.post(f"{system.url}/v1/events", json=event | {"data": {"text": "fine", "stars": 6}})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/data/stars")


def test_it_is_written_as_the_house_writes(copied: Path) -> None:
    bin_folder = Path(sys.executable).parent
    for command in (
        ["ruff", "check", "--no-cache", "backend/pipelines/reviews.py"],
        ["ruff", "format", "--no-cache", "--check", "backend/pipelines/reviews.py"],
        ["lint-imports", "--no-cache"],
    ):
        done = subprocess.run(
            [bin_folder / command[0], *command[1:]], cwd=copied, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

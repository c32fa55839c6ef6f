"""Who may import whom (pyproject.toml, [tool.importlinter]): kept, and noticed when it is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("contract", "backend", "gpu_worker")


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    linter = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([linter, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree, to do wrong in."""
    folder = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_house_stands_as_it_was_drawn() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("gpu_worker/batcher.py", "import backend.errors", "meet in the contract"),
        ("backend/jobs/store.py", "import backend.tasks", "floors of the backend"),
        ("backend/submit.py", "import backend.worker", "floors of the backend"),
        ("backend/llm/base.py", "import backend.settings", "Adapters"),
        ("gpu_worker/engines/base.py", "import gpu_worker.settings", "Adapters"),
        ("contract/messages.py", "import boto3", "A node has no"),
        ("backend/views.py", "import torch", "computes nothing"),
        ("backend/attic.py", "", "attic"),
    ],
)
def test_a_wrong_import_is_noticed(copied: Path, module: str, line: str, contract: str) -> None:
    # Given a module with a line too many
    file = copied / module
    before = file.read_text("utf-8") if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n", "utf-8")

    # When the linter looks at it
    try:
        done = lint_imports(copied)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, "utf-8")

    # Then it says which rule is broken
    broken = [report for report in done.stdout.splitlines() if "BROKEN" in report or "attic" in report]
    assert done.returncode != 0
    assert any(contract in report for report in broken), done.stdout

"""The scripts are sound shell, say what they do, and the pins name no address."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHELL_SCRIPTS = sorted(
    path
    for path in [*(ROOT / "scripts").iterdir(), *(ROOT / ".ci").iterdir()]
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
)
EXPECTED = {"setup", "bench", "chaos", "demo", "dev", "test", "check", "lint", "run"}


def test_every_script_of_the_readme_is_there() -> None:
    assert {path.name for path in SHELL_SCRIPTS} >= EXPECTED


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(script: Path) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text("utf-8").splitlines()[1].startswith("# ")


def test_the_check_looks_at_every_script() -> None:
    looked_at = (ROOT / "scripts" / "check").read_text("utf-8")
    for script in SHELL_SCRIPTS:
        assert str(script.relative_to(ROOT)) in looked_at


def test_pins_are_bare() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == sorted(pins, key=lambda pin: pin.partition("==")[0])
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*", pin), pin  # of no special build
        assert not pin.startswith(("nvidia-", "triton==")), "torch says itself which it needs"


def test_whatever_is_required_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    for requirement in required:
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, f"{name} is not in constraints.txt"


def run_setup(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "scripts" / "setup", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_a_python_it_says_what_to_install(tmp_path: Path) -> None:
    # Given a machine whose only Python is too old
    for name in ("dirname", "cat"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    # When it is asked for that very one
    done = run_setup({"PATH": str(tmp_path), "FANFARE_PYTHON": str(old)})

    # Then it says so, and nothing on stdout could be taken for a folder
    assert done.returncode == 1
    assert "FANFARE_PYTHON" in done.stderr
    assert done.stdout == ""


def test_an_unknown_word_is_refused() -> None:
    done = run_setup(dict(os.environ), "--no-such-option")
    assert done.returncode == 2
    assert "Usage" in done.stderr

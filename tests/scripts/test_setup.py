"""The set-up, run for real on a small checkout: from nothing, again, after a cut, beside what isn't ours."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.services import missing

ROOT = Path(__file__).parent.parent.parent

PYPROJECT = """
[project]
name = "tiny"
version = "1.2.3"
dependencies = []
[project.optional-dependencies]
dev = []
gpu = []
[project.scripts]
tiny = "tiny:main"
"""

PROGRAM = """
import sys
from importlib.metadata import version
def main():
    print(version("tiny"), sys.argv[1:])
"""


class Checkout:
    """A project of one module, with our scripts, in a folder with spaces in its name."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a check out"
        self.home = root / "home"
        self.home.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        for name in ("setup", "environment.py"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "constraints.txt").write_text("")
        (self.root / "tiny.py").write_text(PROGRAM)
        self.venv = self.root / ".venv"

    @property
    def env(self) -> dict[str, str]:
        home = {"HOME": str(self.home), "XDG_CACHE_HOME": "", "FANFARE_PYTHON": ""}
        return {**os.environ, **home, "PYTHONPATH": ""}

    def setup(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """From another folder, as anybody might."""
        command = [str(self.root / "scripts" / "setup"), *arguments]
        done = subprocess.run(
            command, cwd="/", env=self.env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done


def cpu_seconds_of_children() -> float:
    """Of those that have ended; the same whatever else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Set up from nothing."""
    checkout = Checkout(tmp_path_factory.mktemp("setup"))
    done = checkout.setup()
    assert done.stdout == f"{checkout.venv / 'bin'}\n"
    yield checkout
    shutil.rmtree(checkout.root)


def test_its_program_runs_from_anywhere(checkout: Checkout) -> None:
    done = subprocess.run(
        [checkout.venv / "bin" / "tiny", "a b"], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.2.3 ['a b']\n"


def test_a_second_run_does_nothing_and_is_quick(checkout: Checkout) -> None:
    # Given something that a set-up from nothing would take away
    trace = checkout.venv / "trace"
    trace.touch()

    before = cpu_seconds_of_children()
    done = checkout.setup()

    assert cpu_seconds_of_children() - before < 2
    assert done.stdout == f"{checkout.venv / 'bin'}\n"
    assert done.stderr == ""
    assert trace.exists()


def test_more_extras_are_added_in_place_and_stay(checkout: Checkout) -> None:
    trace = checkout.venv / "trace"
    trace.touch()
    checkout.setup("--dev")
    assert json.loads((checkout.venv / ".setup.json").read_text())["extras"] == ["dev", "gpu"]
    assert checkout.setup().stderr == ""  # what has more is good for less
    assert trace.exists()


def test_a_cut_off_set_up_is_made_good(checkout: Checkout) -> None:
    # Given a set-up from nothing that is ended as soon as it has begun to write
    (checkout.venv / ".setup.json").unlink()
    process = subprocess.Popen(
        [checkout.root / "scripts" / "setup"],
        env=checkout.env,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while (checkout.venv / "trace").exists() or not (checkout.venv / "pyvenv.cfg").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) in (130, -signal.SIGINT)
    assert not (checkout.venv / ".setup.json").exists()

    # Then the next one makes a whole environment
    checkout.setup()
    assert subprocess.run([checkout.venv / "bin" / "tiny"], capture_output=True, check=False).returncode == 0


# -- where it is kept ---------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up's own module, for a checkout and a home of its own."""
    spec = spec_from_file_location("environment", ROOT / "scripts" / "environment.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "environment", module)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return module


def chosen(environment: ModuleType) -> Path:
    return Path(environment.choose_folder(environment.read_wanted([])))


def test_it_is_kept_in_the_checkout(environment: ModuleType, tmp_path: Path) -> None:
    assert chosen(environment) == tmp_path / ".venv"


def test_an_environment_of_somebody_else_is_left_alone(environment: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    assert chosen(environment).parent == tmp_path / "home" / ".cache" / "fanfare"


@pytest.mark.parametrize("home", ["", "/proc"])
def test_without_a_home_it_goes_to_the_temporary_folder(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / ".venv").write_text("not even a folder")
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert chosen(environment).parent == tmp_path / "tmp" / f"fanfare-{os.geteuid()}"


# -- which torch --------------------------------------------------------------------------------------

HERE = f"cp{sys.version_info.major}{sys.version_info.minor}"


@pytest.fixture
def no_gpu(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_has_nvidia_gpu", lambda: False)
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.usefixtures("no_gpu")
def test_the_small_torch_is_asked_for_where_there_is_no_gpu(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.wants_torch_for_cpu({})
    assert not environment.wants_torch_for_cpu({"UV_TORCH_BACKEND": "cu130"})
    monkeypatch.setattr(environment, "_has_nvidia_gpu", lambda: True)
    assert not environment.wants_torch_for_cpu({})


@pytest.mark.usefixtures("no_gpu")
def test_a_torch_among_the_machines_own_wheels_is_taken(environment: ModuleType, tmp_path: Path) -> None:
    (tmp_path / f"torch-2.13.0+cpu-{HERE}-{HERE}-manylinux_2_28_x86_64.whl").touch()
    (tmp_path / "empty").mkdir()
    assert not environment.wants_torch_for_cpu({"UV_FIND_LINKS": f"{tmp_path / 'empty'},{tmp_path}"})
    assert environment.wants_torch_for_cpu({"UV_FIND_LINKS": str(tmp_path / "empty")})


@pytest.mark.usefixtures("no_gpu")
def test_a_torch_for_another_python_is_named_and_passed_over(
    environment: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp27-cp27m-manylinux_2_28_x86_64.whl").touch()
    assert environment.wants_torch_for_cpu({"UV_FIND_LINKS": str(tmp_path)})
    assert f"not for Python {sys.version.split()[0]}" in capfd.readouterr().err


@pytest.mark.usefixtures("no_gpu")
def test_without_torchs_own_index_the_ordinary_torch_is_taken(
    environment: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given a uv that can't reach that index
    uv = tmp_path / "uv"
    uv.write_text(f"""#!/bin/sh
echo "$@" >> "{tmp_path}/asked"
case "$*" in *--torch-backend=cpu*) exit 2;; esac
""")
    uv.chmod(0o755)

    environment._run_uv([str(uv), "install"], dict(os.environ) | {"UV_FIND_LINKS": ""}, with_torch=True)

    assert (tmp_path / "asked").read_text().splitlines() == ["install --torch-backend=cpu", "install"]
    assert "taking the ordinary one" in capfd.readouterr().err


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def wheel(folder: Path, version: str) -> None:
    """A torch of this version, with nothing in it."""
    folder.mkdir(parents=True)
    info = f"torch-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_extra_takes_a_torch_of_the_machine_before_that_of_the_index(
    tmp_path: Path, installer: str
) -> None:
    # Given an index with the ordinary torch, and a build of the machine's own
    wheel(tmp_path / "index" / "torch", "2.13.0")
    wheel(tmp_path / "wheels", "2.13.0+cpu")
    (page,) = (tmp_path / "index" / "torch").iterdir()
    (page.parent / "index.html").write_text(f'<a href="{page.name}">{page.name}</a>')
    command = [sys.executable, "-I", "-m", "pip"]
    if installer == "uv":
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            missing("no uv")
        command = [uv, "pip"]

    # When what the extra says of torch is installed, held by our constraints
    (wanted,) = [line for line in project()["optional-dependencies"]["gpu"] if line.startswith("torch>")]
    done = subprocess.run(
        [*command, "install", "--no-deps", "--target", str(tmp_path / "installed"),
         "--index-url", (tmp_path / "index").as_uri(), "--find-links", str(tmp_path / "wheels"),
         "-c", str(ROOT / "constraints.txt"), wanted],
        env={name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        | {"PIP_CONFIG_FILE": os.devnull, "UV_PYTHON": sys.executable, "UV_NO_CACHE": "1"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    # Then it is the machine's own
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed" / "torch-2.13.0+cpu.dist-info").is_dir()

"""`fanfare-node models` and `download`: real processes, without a broker, and without torch."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu_worker.engines.diffusers.hub_server import COMMIT, Repository, running_hub
from tests.gpu_worker.engines.diffusers.small_models import sdxl_files, write

ROOT = Path(__file__).parents[2]
OF_THE_EXTRA = ("torch", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub")
CATALOG = """
[models.near]
source = "./near"
family = "sdxl"
license = "MIT"
[models.far]
source = "owner/name"
family = "sdxl"
license = "MIT"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path / "near", sdxl_files())
    (tmp_path / "catalog.toml").write_text(CATALOG)
    return tmp_path


@pytest.fixture(scope="session")
def packages_without_the_extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is installed here, but for the extra `gpu`."""
    folder = tmp_path_factory.mktemp("packages")
    for installed in map(Path, site.getsitepackages()):
        for path in installed.iterdir() if installed.is_dir() else ():
            target = folder / path.name
            if path.suffix != ".pth" and path.name not in OF_THE_EXTRA and not target.exists():
                target.symlink_to(path)
    return folder


def node(
    home: Path, *arguments: str, packages: Path | None = None, **more: str
) -> "subprocess.CompletedProcess[str]":
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FANFARE_", "HF_"))
    }
    environment |= {
        "FANFARE_NODE_CATALOG": str(home / "catalog.toml"),
        "FANFARE_NODE_MODEL_CACHE": str(home / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": f"{ROOT}:{packages}" if packages else str(ROOT),
        **more,
    }
    flags = ["-S"] if packages else []
    command = [sys.executable, *flags, "-m", "gpu_worker", *arguments]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)


def test_the_models_are_shown_without_torch_and_without_a_broker(
    home: Path, packages_without_the_extra: Path
) -> None:
    done = node(home, "models", packages=packages_without_the_extra)
    assert done.returncode == 0, done.stderr
    assert "near (sdxl): here at " in done.stdout
    assert "far (sdxl): not here" in done.stdout
    assert "the model is not downloaded: fanfare-node download far" in done.stdout


def test_programs_get_json_and_an_exit_code(home: Path, packages_without_the_extra: Path) -> None:
    (home / "near/unet/code.py").write_text("")
    done = node(home, "models", "--json", packages=packages_without_the_extra)
    near, far = json.loads(done.stdout)
    assert done.returncode == 1
    assert near["faults"] == ["it brings code of its own (unet/code.py)"]
    assert (far["here"], far["faults"]) == (False, [])


def test_a_bad_catalog_is_told_line_by_line(home: Path, packages_without_the_extra: Path) -> None:
    (home / "catalog.toml").write_text("[models.a]\nfamly = 1\n")
    done = node(home, "models", packages=packages_without_the_extra)
    assert done.returncode == 2
    assert f"{home}/catalog.toml: models.a.famly: unknown key (did you mean family?)" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_tells_what_is_missing_without_torch(home: Path, packages_without_the_extra: Path) -> None:
    done = node(
        home, "check", packages=packages_without_the_extra,
        FANFARE_BROKER_URL="redis://127.0.0.1:1/0", FANFARE_NODE_ENGINES="diffusers",
    )  # fmt: skip
    assert done.returncode == 1
    assert "The engine diffusers needs packages that are missing (torch, " in done.stdout
    assert "pip install 'fanfare[gpu]'" in done.stdout
    assert "near (sdxl): here at " in done.stdout


def test_a_download_without_the_extra_says_what_to_install(
    home: Path, packages_without_the_extra: Path
) -> None:
    done = node(home, "download", "far", packages=packages_without_the_extra)
    assert done.returncode == 2
    assert "The package huggingface_hub is missing: pip install 'fanfare[gpu]'" in done.stderr


def test_models_are_downloaded_and_failures_told(home: Path) -> None:
    with running_hub() as hub:
        failed = node(home, "download", "far", HF_ENDPOINT=hub.url)
        assert failed.returncode == 1
        assert failed.stderr == (
            f"far: {hub.url}/owner/name: there is no such repository, or it is private; then set HF_TOKEN\n"
        )
        hub.repositories["owner/name"] = Repository({COMMIT: sdxl_files()}, private=True)
        done = node(home, "download", "far", "near", HF_ENDPOINT=hub.url, HF_TOKEN="hf_right")
    assert done.returncode == 0, done.stderr
    assert f"far: here at {COMMIT}" in done.stdout
    assert "near: nothing to download" in done.stdout
    assert node(home, "download", "theirs").returncode == 2

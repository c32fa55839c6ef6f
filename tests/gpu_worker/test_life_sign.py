"""The signs of life on this machine, and what `health` makes of them."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gpu_worker.health import health
from gpu_worker.life_sign import FRESH_S, LifeSign, read_signs
from gpu_worker.settings import Settings

ASK = """
import sys
from gpu_worker.worker import main
try: main(["health"])
except SystemExit: print(*sys.modules)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"fanfare-node-{os.geteuid()}" / "n"


def settings(name: str = "n") -> Settings:
    return Settings(broker_url="redis://127.0.0.1:1/0", node_name=name)


def grow_old(file: Path) -> None:
    then = time.time() - FRESH_S - 1
    os.utime(file, (then, then))


def test_who_works_says_so_and_who_left_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    sign = LifeSign("n", "diffusers-cuda0", lambda: "ready, 3 in hand")
    assert health(settings()) == 1

    sign.give()
    assert health(settings()) == 0
    assert "diffusers-cuda0: ready, 3 in hand" in capsys.readouterr().out
    assert health(settings("another")) == 1

    sign.take_back()
    assert health(settings()) == 1


def test_one_that_is_silent_is_named_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LifeSign("n", "diffusers-cuda0", lambda: "ready").give()
    LifeSign("n", "diffusers-cuda1", lambda: "ready").give()
    grow_old(folder / "diffusers-cuda1")

    assert health(settings()) == 0
    assert "diffusers-cuda1: no sign of life for 36 s; the last: ready" in capsys.readouterr().out

    grow_old(folder / "diffusers-cuda0")
    assert health(settings()) == 1


def test_a_process_whose_engine_is_gone_gives_no_sign() -> None:
    LifeSign("n", "diffusers-cuda0", lambda: None).give()
    assert list(read_signs("n")) == []


def test_no_name_leads_out_of_the_folder_and_nobody_else_reads_it(folder: Path) -> None:
    LifeSign("../../etc", "sketch-cpu", lambda: "ready").give()
    assert [sign.text for sign in read_signs("../../etc")] == ["ready"]
    assert [path.name for path in folder.parent.iterdir()] == ["_.._etc"]
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_end(folder: Path) -> None:
    folder.parent.write_text("not a folder")
    LifeSign("n", "sketch-cpu", lambda: "ready").give()
    assert health(settings()) == 1


def test_asking_is_cheap() -> None:
    """Containers ask every few seconds: neither Celery nor torch is imported for that."""
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"FANFARE_BROKER_URL": "redis://127.0.0.1:1/0", "TMPDIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.splitlines()[-1].split())
    assert "gpu_worker.health" in imported
    assert not imported & {"celery", "redis", "torch", "PIL", "httpx"}

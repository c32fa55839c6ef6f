"""`fanfare make` against a server: what is saved, what is said, and the exit code."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from backend.client import api as client_module
from backend.make import MakeOptions, make
from backend.saved_folder import FolderUnusable, check_writable
from backend.settings import Settings
from tests.backend.client.scripted_api import TASK_ID, Reply, ScriptedApi, as_json, event, events, job

SUBMIT = "POST /v1/thumbnails"
JOB = f"GET /v1/jobs/{TASK_ID}"
EVENTS = f"GET /v1/jobs/{TASK_ID}/events"
CANCEL = f"POST /v1/jobs/{TASK_ID}/cancel"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.005)
    api = ScriptedApi()
    yield api
    api.close()


def picture(width: int, height: int, image_format: str = "WEBP") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "#b5651d").save(data, image_format)
    return data.getvalue()


def completed(api: ScriptedApi, index: int, **more: Any) -> dict[str, Any]:
    """An image of the job, its files on the server."""
    original, small = picture(64, 32), picture(32, 16)
    api.on(f"GET /{index}", Reply(200, original))
    api.on(f"GET /{index}-32", Reply(200, small))
    thumbnail = {"width": 32, "height": 16, "content_type": "image/webp", "bytes": len(small)}
    return {
        "index": index,
        "status": "completed",
        "prompt": f"prompt {index}",
        "content_type": "image/webp",
        "bytes": len(original),
        "url": f"{api.url}/{index}",
        "thumbnails": [thumbnail | {"url": f"{api.url}/{index}-32"}],
    } | more


def failed(index: int) -> dict[str, Any]:
    error = {"code": "out_of_memory", "message": "The image is too large for the device.", "retryable": True}
    return {"index": index, "status": "failed", "prompt": "p", "error": error}


def serve(api: ScriptedApi, ended: dict[str, Any]) -> None:
    api.on(SUBMIT, as_json(job(), 202))
    api.on(EVENTS, events(event("job", ended, 1)))
    api.on(JOB, as_json(ended))


def run(api: ScriptedApi, out: Path | None, count: int = 2) -> tuple[int, str]:
    said = io.StringIO()
    options = MakeOptions({"message": "m", "count": count}, count, out, api.url, None)
    code = make(Settings(), options, Console(file=said, width=300))
    return code, said.getvalue()


def test_everything_is_saved_under_its_name(api: ScriptedApi, tmp_path: Path) -> None:
    ended = job("completed", [completed(api, 0), completed(api, 1)])
    serve(api, ended)

    code, said = run(api, tmp_path / "out")

    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "01-32.webp", "01.webp", "02-32.webp", "02.webp", "contact-sheet.png", "job.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "job.json").read_text()) == ended
    assert (tmp_path / "out" / "02.webp").read_bytes() == picture(64, 32)
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert str(tmp_path / "out" / "01.webp") in said


def test_by_default_the_folder_is_named_for_the_job(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    serve(api, job("completed", [completed(api, 0)]))

    run(api, None, count=1)

    assert (tmp_path / "out" / TASK_ID / "01.webp").exists()


def test_a_second_run_replaces_its_own_files_and_leaves_others(api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "01.webp").write_bytes(b"of an earlier run")
    (tmp_path / "notes.txt").write_text("mine")
    serve(api, job("completed", [completed(api, 0)]))

    code, _ = run(api, tmp_path, count=1)

    assert code == 0
    assert (tmp_path / "01.webp").read_bytes() == picture(64, 32)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_of_a_partial_job_the_good_images_are_saved_and_the_failures_told(
    api: ScriptedApi, tmp_path: Path
) -> None:
    serve(api, job("partially_completed", [failed(0), completed(api, 1)]))

    code, said = run(api, tmp_path)

    assert code == 1
    assert (tmp_path / "02.webp").exists()
    assert not (tmp_path / "01.webp").exists()
    assert (tmp_path / "contact-sheet.png").exists()
    assert "01 out_of_memory: The image is too large for the device." in said


def test_a_failed_job_saves_its_record_and_tells_why(api: ScriptedApi, tmp_path: Path) -> None:
    error = {"code": "llm_unavailable", "message": "The language model can't be reached."}
    serve(api, job("failed", error=error))

    code, said = run(api, tmp_path)

    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
    assert "llm_unavailable: The language model can't be reached." in said


def test_a_file_that_can_t_be_had_costs_no_other(api: ScriptedApi, tmp_path: Path) -> None:
    serve(api, job("completed", [completed(api, 0), completed(api, 1)]))
    api.on("GET /0", Reply(404))

    code, said = run(api, tmp_path)

    assert code == 1
    assert (tmp_path / "02.webp").exists()
    assert "not saved: 01.webp" in said


def test_more_than_99_images_are_still_in_order_by_name(api: ScriptedApi, tmp_path: Path) -> None:
    serve(api, job("completed", [failed(index) for index in range(99)] + [completed(api, 99)]))

    run(api, tmp_path, count=100)

    assert (tmp_path / "100.webp").exists()


def test_a_folder_that_need_not_exist_yet_is_looked_at_and_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that is closed even to root")
def test_a_folder_that_is_closed_is_told_before_any_work() -> None:
    with pytest.raises(FolderUnusable, match="--out"):
        check_writable(Path("/proc/images"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupt_cancels_the_job(api: ScriptedApi, tmp_path: Path, number: int, code: int) -> None:
    # Given a `make` that watches a job that doesn't end
    api.on(SUBMIT, as_json(job(), 202))
    api.on(EVENTS, events())
    api.on(JOB, as_json(job("in_progress")))
    api.on(CANCEL, as_json(job("canceled")))
    process = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "make", "m", "--server", api.url, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not api.seen(EVENTS) and time.monotonic() < deadline:
        time.sleep(0.02)

    # When it is interrupted
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)

    # Then the job is canceled, and nothing is saved
    assert process.returncode == code, said
    assert len(api.seen(CANCEL)) == 1
    assert list(tmp_path.iterdir()) == []

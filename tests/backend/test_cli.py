"""The command line as its users meet it: what it prints, where, and the exit code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend import cli
from tests.backend.client.scripted_api import TASK_ID, ScriptedApi, as_json, job


@dataclass(frozen=True)
class Result:
    """What one command came to."""

    returncode: int
    stdout: str
    stderr: str


Fanfare = Callable[..., Result]

IMAGES = [
    {"index": 0, "status": "completed", "prompt": "a fox"},
    {"index": 1, "status": "failed", "error": {"code": "out_of_memory", "message": "Too large."}},
]


@pytest.fixture
def fanfare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Fanfare]:
    """Runs a command in this process, with a home and a working folder of its own."""
    for name in os.environ:
        if name.startswith(("FANFARE_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FANFARE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **env: str) -> Result:
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", ["fanfare", *arguments])
            for name, value in env.items():
                changed.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, *capsys.readouterr())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    yield api
    api.close()


def test_the_program_itself_runs() -> None:
    program = [sys.executable, "-m", "backend.cli", "--version"]

    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout.startswith("fanfare ")


def test_a_wrong_setting_is_told_by_its_name_without_a_traceback(fanfare: Fanfare) -> None:
    result = fanfare("jobs", FANFARE_API_PORT="eighty")

    assert result.returncode == 2
    assert "FANFARE_API_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_server_it_says_how_to_get_one(fanfare: Fanfare) -> None:
    result = fanfare("jobs")

    assert result.returncode == 1
    assert "fanfare up" in result.stderr
    assert "Traceback" not in result.stderr


def test_jobs_are_listed(fanfare: Fanfare, api: ScriptedApi) -> None:
    listed = job("completed", progress={"completed": 1, "total": 2}, created_at="2026-11-20T10:00:00Z")
    api.on("GET /v1/jobs?limit=5&status=completed", as_json({"results": [listed]}))

    result = fanfare("jobs", "--limit", "5", "--status", "completed", "--server", api.url)

    assert result.returncode == 0
    assert TASK_ID in result.stdout
    assert "1/2" in result.stdout
    assert "2026-11-20 10:00:00" in result.stdout


def test_a_job_is_shown_with_what_failed(fanfare: Fanfare, api: ScriptedApi) -> None:
    api.on(f"GET /v1/jobs/{TASK_ID}", as_json(job("partially_completed", IMAGES)))

    result = fanfare("job", TASK_ID, FANFARE_API_URL=api.url, FANFARE_API_KEY="ff_key")

    assert "a fox" in result.stdout
    assert "out_of_memory: Too large." in result.stdout
    assert api.requests[0].headers["Authorization"] == "Bearer ff_key"


def test_a_job_of_files_is_shown_with_what_became_of_each(
    fanfare: Fanfare, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job of more files than its view has
    items = [
        {"index": 0, "status": "completed", "filename": "shop.jpg",
         "width": 800, "height": 600, "bytes": 4711},
        {"index": 1, "status": "failed", "source_url": "https://shop.example/[b].png",
         "error": {"code": "source_unavailable", "message": "shop.example answered 404."}},
    ]  # fmt: skip
    shown = job("partially_completed", [], items=items, progress={"completed": 150, "total": 300}, input={})
    api.on(f"GET /v1/jobs/{TASK_ID}", as_json(shown))
    api.on("GET /v1/jobs?limit=20", as_json({"results": [shown]}))
    monkeypatch.setenv("COLUMNS", "200")

    result, listed = (fanfare(*words, "--server", api.url) for words in (("job", TASK_ID), ("jobs",)))

    for words in ("shop.jpg", "800x600", "4711", "[b].png", "shop.example answered 404.", "298 more files"):
        assert words in result.stdout
    assert "shop.jpg" in listed.stdout


def test_a_job_of_an_event_is_shown_with_what_came_out(fanfare: Fanfare, api: ScriptedApi) -> None:
    shown = job("completed", [], input={"type": "review.received", "data": {}}, output={"show": False})
    api.on(f"GET /v1/jobs/{TASK_ID}", as_json(shown))
    api.on("GET /v1/jobs?limit=20", as_json({"results": [shown]}))

    result, listed = (fanfare(*words, "--server", api.url) for words in (("job", TASK_ID), ("jobs",)))

    assert '"show": false' in result.stdout
    assert "review.received" in listed.stdout


def test_json_is_what_the_server_said(fanfare: Fanfare, api: ScriptedApi) -> None:
    api.on(f"POST /v1/jobs/{TASK_ID}/cancel", as_json(job("canceled")))

    result = fanfare("cancel", TASK_ID, "--json", "--server", api.url)

    assert json.loads(result.stdout) == job("canceled")


def test_a_refusal_is_told_as_the_server_put_it(fanfare: Fanfare, api: ScriptedApi) -> None:
    api.on(f"POST /v1/jobs/{TASK_ID}/retry", as_json({"detail": "Nothing has failed."}, 409))

    result = fanfare("retry", TASK_ID, "--server", api.url)

    assert (result.returncode, result.stderr.strip()) == (1, "Error: Nothing has failed.")


def test_workers_and_models_are_listed(fanfare: Fanfare, api: ScriptedApi) -> None:
    node = {"name": "box-1", "state": "ready", "device": {"name": "H200"}, "models": ["sdxl"], "running": 3}
    model = {"name": "sdxl", "engine": "diffusers", "workers": 1, "min_size": 64, "max_size": 2048}
    api.on("GET /v1/workers", as_json({"results": [node]}))
    api.on("GET /v1/models", as_json({"results": [model]}))

    workers, models = fanfare("workers", "--server", api.url), fanfare("models", "--server", api.url)

    assert all(word in workers.stdout for word in ("box-1", "H200", "sdxl", "3"))
    assert all(word in models.stdout for word in ("sdxl", "diffusers", "64 to 2048"))
    assert not any(word in models.stdout for word in ("LoRAs", "license")), "columns with nothing in them"


def test_a_key_is_made_listed_and_revoked(fanfare: Fanfare) -> None:
    made = fanfare("keys", "create", "shop")
    text = made.stdout.strip()
    prefix = text.split("_")[1]

    listed = json.loads(fanfare("keys", "list", "--json").stdout)
    weighed = fanfare("keys", "weight", prefix, "3")
    revoked = fanfare("keys", "revoke", prefix)
    after = json.loads(fanfare("keys", "list", "--json").stdout)

    assert made.returncode == weighed.returncode == revoked.returncode == 0
    assert weighed.stdout.strip() == f"{prefix} (shop) weighs 3"
    assert text.startswith("ff_")
    assert [(key["name"], key["prefix"], key["revoked_at"]) for key in listed] == [("shop", prefix, "")]
    assert after[0]["revoked_at"]


def test_a_key_that_is_not_there_can_t_be_revoked(fanfare: Fanfare) -> None:
    result = fanfare("keys", "revoke", "nope")

    assert result.returncode == 1
    assert "no such key" in result.stderr


def test_a_database_that_is_none_is_told_plainly(fanfare: Fanfare) -> None:
    result = fanfare("migrate", FANFARE_DATABASE_URL="mango://x")

    assert result.returncode == 1
    assert "FANFARE_DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_operators_see_what_nodes_are_at(
    fanfare: Fanfare, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a node that has one model loaded, and is loading another
    node = {
        "name": "box-1", "state": "ready", "models": ["sdxl", "flux", "sana"], "loaded": ["sdxl"],
        "loading": ["flux"], "doing": "sdxl: 4 images", "memory_used_bytes": 9_200_000_000,
        "device": {"name": "H200", "memory_bytes": 150_000_000_000},
    }  # fmt: skip
    model = {
        "name": "flux", "workers": 2, "loaded": 1, "loading": 1, "tasks": ["text-to-image", "inpainting"],
        "loras": [{"name": "ink"}], "license": "Apache-2.0",
    }  # fmt: skip
    api.on("GET /v1/workers", as_json({"results": [node]}))
    api.on("GET /v1/models", as_json({"results": [model]}))
    monkeypatch.setenv("COLUMNS", "200")

    workers, models = fanfare("workers", "--server", api.url), fanfare("models", "--server", api.url)

    for words in ("9.2 of 150.0 GB", "sdxl*, flux..., sana", "sdxl: 4 images"):
        assert words in workers.stdout
    for words in ("1 (+1 loading)", "text-to-image, inpainting", "ink", "Apache-2.0"):
        assert words in models.stdout


def test_a_worker_without_a_broker_says_so(fanfare: Fanfare) -> None:
    result = fanfare("worker")

    assert result.returncode == 2
    assert "FANFARE_BROKER_URL" in result.stderr


def test_make_looks_at_its_folder_before_it_begins(fanfare: Fanfare, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = fanfare("make", "m", "--out", str(tmp_path / "file" / "images"))

    assert result.returncode == 1
    assert "is not a folder" in result.stderr
    assert not (tmp_path / "home").exists()


def test_openapi_needs_no_service(fanfare: Fanfare, tmp_path: Path) -> None:
    result = fanfare("openapi", "--out", str(tmp_path / "openapi.json"))

    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "openapi.json").read_text())
    assert "/v1/thumbnails" in document["paths"]
    assert json.loads(fanfare("openapi").stdout) == document


def test_the_doctor_is_content_where_nothing_runs_yet(fanfare: Fanfare) -> None:
    result = fanfare("doctor")

    assert result.returncode == 0, result.stdout
    assert "`fanfare up` starts it" in result.stdout
    assert "fail" not in result.stdout


def test_the_doctor_finds_what_is_wrong_and_keeps_secrets(fanfare: Fanfare) -> None:
    result = fanfare(
        "doctor",
        "--json",
        FANFARE_BROKER_URL="redis://:hunter2@127.0.0.1:1/0",
        FANFARE_DATABASE_URL="postgresql://me:hunter3@127.0.0.1:1/fanfare",
        FANFARE_PUBLIC_URL="example.com",
        FANFARE_DATABSE_URL="x",
    )

    levels = {(finding["about"], finding["level"]) for finding in json.loads(result.stdout)}
    assert result.returncode == 1
    assert {
        ("broker", "fail"),
        ("result store", "fail"),
        ("database", "fail"),
        ("addresses", "fail"),
    } <= levels
    assert ("settings", "warn") in levels
    assert "hunter" not in result.stdout + result.stderr


# -- pruning ------------------------------------------------------------------------------------------


@pytest.fixture
def pruned_home(tmp_path: Path, fanfare: Fanfare) -> Path:
    """A home with an empty database, and two files of a job that nobody knows."""
    assert fanfare("migrate").returncode == 0
    folder = tmp_path / f"home/files/jobs/{TASK_ID}/000"
    folder.mkdir(parents=True)
    for name in ("original.webp", "thumbnail-32.webp"):
        (folder / name).write_bytes(b"x" * 1000)
        os.utime(folder / name, (0, 0))
    return folder


def test_a_dry_run_says_what_would_go_and_deletes_nothing(fanfare: Fanfare, pruned_home: Path) -> None:
    result = fanfare("prune", "--dry-run")

    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"would go: job {TASK_ID}, orphaned, 2 objects, 2.0 kB",
        "Would delete 2 objects of 1 jobs, 2.0 kB.",
    ]
    assert len(list(pruned_home.iterdir())) == 2


def test_a_database_that_knows_nobody_is_no_reason_to_delete(fanfare: Fanfare, pruned_home: Path) -> None:
    result = fanfare("prune")

    assert result.returncode == 1
    assert "the right one" in result.stderr
    assert len(list(pruned_home.iterdir())) == 2

    assert "Deleted 2 objects" in fanfare("prune", "--force").stdout
    assert not pruned_home.exists()


def test_pruning_for_programs(fanfare: Fanfare, pruned_home: Path) -> None:
    (found,) = json.loads(fanfare("prune", "--dry-run", "--json").stdout)

    assert (found["kind"], found["name"], found["objects"], found["bytes"]) == ("orphaned", TASK_ID, 2, 2000)
    assert len(found["keys"]) == 2
    assert json.loads(fanfare("prune", "--dry-run", "--json", "--older-than", "100000d").stdout) == []
    assert pruned_home.exists()


def test_an_age_that_is_none(fanfare: Fanfare) -> None:
    assert fanfare("prune", "--older-than", "soon").returncode == 2


def test_a_database_that_is_not_there_is_not_made_by_pruning(fanfare: Fanfare) -> None:
    result = fanfare("prune", "--dry-run")

    assert result.returncode == 1
    assert "not migrated" in result.stderr

"""Models are made ready beside the work, and what is wrong with one is told to those who ask for it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_worker.engines.diffusers import readiness
from gpu_worker.engines.diffusers.readiness import Readiness, read_through


def started(find: Callable[[str], Path]) -> Readiness:
    made = Readiness(find)
    made.start()
    return made


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_model_is_made_ready_in_the_background(tmp_path: Path) -> None:
    go, asked = threading.Event(), list[str]()

    def find(model: str) -> Path:
        asked.append(model)
        go.wait(5)
        return tmp_path

    ready = started(find)

    assert not ready.prepare("m")
    assert not ready.prepare("m")
    assert ready.at_work() == ("m",)
    go.set()
    until(lambda: ready.prepare("m"))
    assert (ready.folder("m"), ready.at_work(), asked) == (tmp_path, (), ["m"])
    ready.stop()


def test_a_model_that_is_not_usable_is_ready_to_say_so_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception | Path] = [LookupError("no such files"), tmp_path]

    def find(_model: str) -> Path:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ready = started(find)
    ready.prepare("m")
    until(lambda: not ready.at_work())

    assert ready.prepare("m")
    with pytest.raises(LookupError, match="no such files"):
        ready.folder("m")
    monkeypatch.setattr(readiness, "TRY_AGAIN_S", 0)
    ready.prepare("m")
    until(lambda: not ready.at_work())
    assert ready.folder("m") == tmp_path
    ready.stop()


def test_weights_are_read_once_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "b.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")

    assert read_through(tmp_path) == 110

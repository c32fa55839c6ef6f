"""What the user sees: the board keeps the state, the display shows changes only."""

import io
from typing import Any

from rich.console import Console

from backend.client.answers import ImageUpdate, Job, JobImage, JobUpdate, ProgressUpdate
from backend.progress_display import Board, Display


def image(index: int, status: str, **more: Any) -> ImageUpdate:
    return ImageUpdate(image=JobImage.model_validate({"index": index, "status": status} | more))


def progress(index: int, fraction: float) -> ProgressUpdate:
    return ProgressUpdate.model_validate({"images": [{"index": index, "fraction": fraction}]})


def test_an_image_goes_from_waiting_to_done_and_never_back() -> None:
    board = Board(1)
    words = []
    for update in (
        image(0, "pending", prompt="a lighthouse"),
        image(0, "in_progress"),
        progress(0, 0.8),
        progress(0, 0.2),  # late
        image(0, "in_progress"),
        image(0, "in_progress", url="http://x/1"),
        image(0, "completed", url="http://x/1"),
    ):
        board.apply(update)
        words.append((board.lines[0].word, round(board.lines[0].fraction, 2)))

    assert words == [
        ("waiting", 0.0),
        ("painting", 0.0),
        ("painting", 0.76),
        ("painting", 0.76),
        ("painting", 0.76),
        ("saving", 0.95),
        ("done", 1.0),
    ]
    assert board.lines[0].prompt == "a lighthouse"


def test_a_job_update_sets_all_its_images_and_says_what_it_waits_for() -> None:
    board = Board(2)
    raw = {
        "task_id": "t",
        "status": "pending",
        "waiting_for": {"reason": "no_worker_for_model", "message": "No node serves sdxl."},
        "images": [{"index": 0, "status": "failed"}, {"index": 1, "status": "pending"}],
    }

    changed = board.apply(JobUpdate(job=Job.parse(raw)))

    assert changed == [0]
    assert board.waiting_for == "No node serves sdxl."


def test_progress_of_an_image_that_is_not_there_is_passed_over() -> None:
    assert Board(1).apply(progress(7, 0.5)) == []


def test_without_a_terminal_each_change_is_one_plain_line() -> None:
    stream = io.StringIO()
    display = Display(Console(file=stream, width=200), count=2)

    with display.showing():
        for update in (
            image(0, "in_progress", prompt="a [bold] lighthouse\nat night"),
            progress(0, 0.5),
            image(0, "completed"),
            image(0, "completed"),
        ):
            display.show(update)

    assert stream.getvalue().splitlines() == [
        "01 painting a [bold] lighthouse at night",
        "01 done     a [bold] lighthouse at night",
    ]


def test_on_a_terminal_there_is_a_bar_per_image() -> None:
    stream = io.StringIO()
    display = Display(Console(file=stream, width=120, force_terminal=True), count=2)

    with display.showing():
        display.show(image(1, "in_progress", prompt="a [red]fox"))
        display.show(image(1, "completed"))

    shown = stream.getvalue()
    assert "a [red]fox" in shown
    assert "100%" in shown
    assert "01" in shown

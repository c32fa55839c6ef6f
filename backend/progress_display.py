"""What the user sees while the images are made: a bar per image on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backend.client.answers import ImageUpdate, Job, JobImage, JobUpdate, Update, WaitingFor

WORDS = {
    "pending": "waiting",
    "in_progress": "painting",
    "stored": "saving",
    "completed": "done",
    "failed": "failed",
    "canceled": "canceled",
}
STYLES = {"done": "green", "failed": "red", "canceled": "yellow", "painting": "cyan", "saving": "cyan"}
PROMPT_CHARACTERS = 60
STORED_FRACTION = 0.95  # the original is there, its thumbnails are not


@dataclass
class Line:
    """One image, as it is shown."""

    word: str = "waiting"
    fraction: float = 0.0
    prompt: str = ""


class Board:
    """What is known of each image: pure, no output. `apply` names the lines that have changed."""

    def __init__(self, count: int) -> None:
        self.lines = {index: Line() for index in range(count)}
        self.waiting_for = ""

    def apply(self, update: Update) -> list[int]:
        if isinstance(update, JobUpdate):
            return self._apply_job(update.job)
        if isinstance(update, ImageUpdate):
            return self._apply_image(update.image)
        self._waits(update.waiting_for)
        changed = []
        for image in update.images:
            line = self.lines.get(image.index)
            fraction = min(image.fraction, 1.0) * STORED_FRACTION
            if line and line.word == "painting" and fraction > line.fraction:
                line.fraction = fraction
                changed.append(image.index)
        return changed

    def _apply_job(self, job: Job) -> list[int]:
        self._waits(None if job.ended else job.waiting_for)
        return [index for image in job.images for index in self._apply_image(image)]

    def _waits(self, waiting_for: WaitingFor | None) -> None:
        self.waiting_for = (waiting_for.message or waiting_for.reason) if waiting_for else ""

    def _apply_image(self, image: JobImage) -> list[int]:
        before = self.lines.get(image.index)
        word = WORDS.get(_status(image), image.status)
        fraction = 1.0 if word in ("done", "failed", "canceled") else 0.0
        if word == "saving":
            fraction = STORED_FRACTION
        if before and before.word == word == "painting":
            fraction = max(fraction, before.fraction)
        after = Line(word, fraction, " ".join(image.prompt.split()) or (before.prompt if before else ""))
        self.lines[image.index] = after
        return [] if after == before else [image.index]


def _status(image: JobImage) -> str:
    return "stored" if image.status == "in_progress" and image.url else image.status


class Display:
    """Shows updates. `live` draws bars and moves the cursor, otherwise each change is a line."""

    def __init__(self, console: Console, count: int) -> None:
        self._console = console
        self._board = Board(count)
        self._live = console.is_terminal
        self._said = ""
        self._bars: dict[int, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.fields[number]}"),
            TextColumn("{task.fields[word]}"),
            BarColumn(bar_width=24, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[prompt]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._live,
        )

    @contextmanager
    def showing(self) -> Iterator[None]:
        """The time during which bars may be drawn."""
        with self._progress:
            for index in self._board.lines:
                self._draw(index)
            yield

    def show(self, update: Update) -> None:
        """Shows what has changed."""
        words = {index: line.word for index, line in self._board.lines.items()}
        for index in self._board.apply(update):
            if self._live:
                self._draw(index)
            elif words.get(index) != self._board.lines[index].word:
                self._print(index)
        self._say_what_it_waits_for()

    def _say_what_it_waits_for(self) -> None:
        reason = self._board.waiting_for
        if reason and reason != self._said:
            self._console.print(f"Waiting: {escape(reason)}", highlight=False)
        self._said = reason

    def _draw(self, index: int) -> None:
        if index not in self._bars:
            self._bars[index] = self._progress.add_task(
                "", total=1, number="", word="", prompt="", start=False
            )
        line, bar = self._board.lines[index], self._bars[index]
        if line.word == "painting":
            self._progress.start_task(bar)
        if line.fraction >= 1:
            self._progress.stop_task(bar)
        style = STYLES.get(line.word, "dim")
        self._progress.update(
            bar,
            completed=line.fraction,
            number=f"{index + 1:02}",
            word=f"[{style}]{line.word:<8}[/]",
            prompt=escape(_short(line.prompt)),
        )

    def _print(self, index: int) -> None:
        line = self._board.lines[index]
        text = f"{index + 1:02} {line.word:<8} {_short(line.prompt)}".rstrip()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _short(text: str) -> str:
    return text if len(text) <= PROMPT_CHARACTERS else text[: PROMPT_CHARACTERS - 1].rstrip() + "…"

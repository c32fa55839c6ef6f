"""What the command line lists, as tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from backend.client.answers import Job

STATUS_STYLES = {
    "pending": "dim",
    "in_progress": "cyan",
    "completed": "green",
    "partially_completed": "yellow",
    "failed": "red",
    "canceled": "yellow",
}
MESSAGE_CHARACTERS = 50


def jobs_table(jobs: Iterable[Job]) -> Table:
    """One line per job."""
    table = _table("task id", "pipeline", "status", "images", "created", "message")
    for job in jobs:
        done = f"{job.progress.completed}/{job.progress.total}"
        message = _short(str(job.input.get("message", "")))
        table.add_row(job.task_id, job.pipeline, _status(job.status), done, _time(job.created_at), message)
    return table


def job_table(job: Job) -> Table:
    """One line per image of the job."""
    table = _table("image", "status", "prompt", "error")
    for image in job.images:
        error = f"{image.error.code}: {image.error.message}" if image.error else ""
        table.add_row(f"{image.index + 1:02}", _status(image.status), escape(image.prompt), escape(error))
    return table


def job_heading(job: Job) -> str:
    """The job in a line or two."""
    heading = f"[bold]{job.task_id}[/] {_status(job.status)} {job.progress.completed}/{job.progress.total}"
    if job.waiting_for and not job.ended:
        heading += f"\nwaiting: {escape(job.waiting_for.message or job.waiting_for.reason)}"
    if job.error:
        heading += f"\n[red]{escape(job.error.code)}: {escape(job.error.message)}[/]"
    return heading


def workers_table(nodes: Iterable[dict[str, Any]]) -> Table:
    """One line per live node."""
    table = _table("node", "state", "device", "models", "running", "done", "failed", "since")
    for node in nodes:
        device = node.get("device") or {}
        table.add_row(
            _cell(node.get("name")),
            _cell(node.get("state")),
            _cell(device.get("name")),
            _cell(", ".join(map(str, node.get("models") or []))),
            *(_cell(node.get(count)) for count in ("running", "done", "failed")),
            _time(str(node.get("started_at", ""))),
        )
    return table


def models_table(models: Iterable[dict[str, Any]]) -> Table:
    """One line per known model."""
    table = _table("model", "engine", "live nodes", "pixels a side", "description")
    for model in models:
        known = model.get("max_size") is not None
        table.add_row(
            _cell(model.get("name")) + (" (default)" if model.get("default") else ""),
            _cell(model.get("engine")),
            _cell(model.get("workers")),
            f"{model['min_size']} to {model['max_size']}" if known else "",
            _cell(model.get("description")),
        )
    return table


def keys_table(rows: Iterable[Sequence[str]]) -> Table:
    """One line per key: prefix, name, made, revoked."""
    table = _table("prefix", "name", "created", "revoked")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)  # names and ids are to be copied
    return table


def _status(status: str) -> str:
    return f"[{STATUS_STYLES.get(status, 'default')}]{escape(status)}[/]"


def _cell(value: object) -> str:
    return "" if value is None else escape(str(value))


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return escape(text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…")

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
    table = _table("task id", "pipeline", "status", "done", "created", "about")
    for job in jobs:
        done = f"{job.progress.completed}/{job.progress.total}"
        about = _short(_about(job))
        table.add_row(job.task_id, job.pipeline, _status(job.status), done, _time(job.created_at), about)
    return table


def _about(job: Job) -> str:
    """What its owner knows it by: the message, the event's type, or the first prompt or file."""
    first = [image.prompt for image in job.images[:1]] + [item.name for item in job.items[:1]]
    return str(job.input.get("message") or job.input.get("type") or "".join(first))


def job_table(job: Job) -> Table:
    """One line per image of the job."""
    table = _table("image", "status", "prompt", "error")
    for image in job.images:
        error = f"{image.error.code}: {image.error.message}" if image.error else ""
        table.add_row(f"{image.index + 1:02}", _status(image.status), escape(image.prompt), escape(error))
    return table


def items_table(job: Job) -> Table:
    """One line per file of the job, of those that its view has."""
    table = _table("file", "status", "from", "size", "bytes", "error")
    for item in job.items:
        error = f"{item.error.code}: {item.error.message}" if item.error else ""
        size = f"{item.width}x{item.height}" if item.width else ""
        about = _status(item.status), escape(item.name), size, _cell(item.bytes), escape(error)
        table.add_row(f"{item.index + 1:02}", *about)
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
    """One line per live node. A model that is loaded has a star, one that is being loaded dots."""
    return _table_of_what_is_known(
        {
            "node": _cell(node.get("name")),
            "state": _cell(node.get("state")),
            "device": _cell((node.get("device") or {}).get("name")),
            "memory": _memory(node.get("memory_used_bytes"), (node.get("device") or {}).get("memory_bytes")),
            "models": _cell(", ".join(_model_of(node, str(name)) for name in node.get("models") or [])),
            "doing": _cell(node.get("doing")),
            "running": _cell(node.get("running")),
            "done": _cell(node.get("done")),
            "failed": _cell(node.get("failed")),
            "since": _time(str(node.get("started_at", ""))),
        }
        for node in nodes
    )


def _model_of(node: dict[str, Any], name: str) -> str:
    if name in (node.get("loaded") or []):
        return f"{name}*"
    return f"{name}..." if name in (node.get("loading") or []) else name


def _memory(used: int | None, whole: int | None) -> str:
    """In GB: "9.2 of 24.0", or what is known of it."""
    known = [f"{size / 1e9:.1f}" for size in (used, whole) if size is not None]
    return f"{' of '.join(known)} GB" if known else ""


def models_table(models: Iterable[dict[str, Any]]) -> Table:
    """One line per known model."""
    return _table_of_what_is_known(
        {
            "model": _cell(model.get("name")) + (" (default)" if model.get("default") else ""),
            "engine": _cell(model.get("engine")),
            "live nodes": _cell(model.get("workers")),
            "loaded": _loaded(model),
            "pixels a side": _sides(model),
            "tasks": _cell(", ".join(map(str, model.get("tasks") or []))),
            "LoRAs": _cell(", ".join(str(lora.get("name")) for lora in model.get("loras") or [])),
            "license": _cell(model.get("license")),
            "description": _cell(model.get("description")),
        }
        for model in models
    )


def _sides(model: dict[str, Any]) -> str:
    return f"{model['min_size']} to {model['max_size']}" if model.get("max_size") is not None else ""


def _loaded(model: dict[str, Any]) -> str:
    text = _cell(model.get("loaded"))
    return f"{text} (+{model['loading']} loading)" if model.get("loading") else text


def keys_table(rows: Iterable[Sequence[str]]) -> Table:
    """One line per key: prefix, name, weight, made, revoked."""
    table = _table("prefix", "name", "weight", "created", "revoked")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)  # names and ids are to be copied
    return table


def _table_of_what_is_known(rows: Iterable[dict[str, str]]) -> Table:
    """Without columns that have nothing to say: a terminal is narrow."""
    rows = list(rows)
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    table = _table(*columns)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
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

"""What can be seen of a system from outside once it has come to rest: rows, answers, files, messages."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from PIL import Image, UnidentifiedImageError
from psycopg.rows import dict_row

from scripts.havoc.load import Client, Load, Placed
from scripts.havoc.receiver import Delivery

SIDE_BY_SIDE = 4  # downloads

Row = dict[str, Any]


@dataclass(frozen=True)
class File:
    """What came from a URL."""

    status: int
    bytes: int = 0
    sha256: str = ""
    size: tuple[int, int] | None = None  # pixels; None: it is no image


@dataclass
class Seen:
    """One order, from all sides."""

    placed: Placed
    again: str = ""  # the id that the same Idempotency-Key brings now
    job: dict[str, Any] = field(default_factory=dict)  # the API's newest answer
    row: Row = field(default_factory=dict)
    images: list[Row] = field(default_factory=list)  # or items, where the order was of files
    events: list[Row] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)  # by URL

    @property
    def name(self) -> str:
        """For reports."""
        return f"job {self.placed.task_id or '(none)'} (order {self.placed.order.number})"


@dataclass
class Facts:
    """All that the checks look at."""

    seen: list[Seen]
    rows: set[str]  # ids of all jobs in the database
    objects: list[str]  # keys in the storage
    left: dict[str, int]  # messages in the broker
    wrong_answers: list[str]
    answers: dict[str, int]
    reserved: set[str] = field(default_factory=set)  # never accepted: their files go by the sweep
    left_running: list[str] = field(default_factory=list)
    ended_badly: list[str] = field(default_factory=list)


def pending_webhooks(database_url: str) -> int:
    """Deliveries that are still to be made."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        found = connection.execute(
            "SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL"
        ).fetchone()
    return int(found[0]) if found else 0


def collect(
    load: Load,
    database_url: str,
    storage: Path,
    left: dict[str, int],
    receiver: str,
    deliveries: Sequence[Delivery],
) -> Facts:
    """Looks at everything."""
    client = load.client()
    seen = [_ask(client, placed, receiver) for placed in load.placed]
    client.close()
    rows, reserved = _add_rows(database_url, {one.placed.task_id: one for one in seen})
    by_id = {one.placed.task_id: one for one in seen}
    for delivery in deliveries:
        if delivery.task_id in by_id:
            by_id[delivery.task_id].deliveries.append(delivery)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool, _downloader() as http:
        urls = [(one, url) for one in seen for url in _urls(one.job)]
        for (one, url), file in zip(urls, pool.map(lambda item: _file(http, item[1]), urls), strict=True):
            one.files[url] = file
    return Facts(
        seen=seen, rows=rows, objects=_objects(storage), left=left,
        wrong_answers=list(load.ledger.wrong), answers=dict(load.ledger.answers), reserved=reserved,
    )  # fmt: skip


def _ask(client: Client, placed: Placed, receiver: str) -> Seen:
    one = Seen(placed)
    one.again = client.submit(placed.order, receiver)
    placed.task_id = placed.task_id or one.again
    if placed.task_id:
        answer = client.ask("GET", f"/v1/jobs/{placed.task_id}", (200,))
        one.job = answer.json() if answer.status_code == httpx.codes.OK else {}
    return one


def _add_rows(database_url: str, seen: dict[str, Seen]) -> tuple[set[str], set[str]]:
    """Also the ids of all jobs that were accepted, and of those that were not in the end."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        jobs = connection.execute("SELECT * FROM jobs").fetchall()
        for row in jobs:
            if one := seen.get(str(row["id"])):
                one.row = row
        for table in ("image_generations", "media_items"):
            for row in connection.execute(f'SELECT * FROM {table} ORDER BY job_id, "index"'):
                if one := seen.get(str(row["job_id"])):
                    one.images.append(row)
        for row in connection.execute("SELECT * FROM job_events ORDER BY job_id, seq"):
            if one := seen.get(str(row["job_id"])):
                one.events.append(row)
    reserved = {str(row["id"]) for row in jobs if row["deleted_at"]}
    return {str(row["id"]) for row in jobs} - reserved, reserved


def images_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """What the API tells of a job's images, or of its items."""
    return [*job.get("images", ()), *job.get("items", ())]


def _urls(job: dict[str, Any]) -> Iterator[str]:
    for image in images_of(job):
        if image["status"] == "completed":
            yield from filter(None, [image["url"], *(thumbnail["url"] for thumbnail in image["thumbnails"])])


def _downloader() -> httpx.Client:
    return httpx.Client(timeout=30, trust_env=False, follow_redirects=True)


def _file(http: httpx.Client, url: str) -> File:
    answer = http.get(url)
    if not answer.is_success:
        return File(answer.status_code)
    return File(answer.status_code, len(answer.content), hashlib.sha256(answer.content).hexdigest(),
                _size(answer.content))  # fmt: skip


def _size(content: bytes) -> tuple[int, int] | None:
    """Of an image that can be decoded to its end."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image.size
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None


def _objects(storage: Path) -> list[str]:
    """Keys, as they lie below the prefix."""
    root = storage / "fanfare"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

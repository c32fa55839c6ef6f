"""The folder that `fanfare make` leaves: originals, thumbnails, a contact sheet and `job.json`."""

import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backend.client.answers import Job
from backend.client.api import Client, DownloadFailed
from backend.errors import FanfareError

EXTENSIONS = {"image/webp": "webp", "image/png": "png", "image/jpeg": "jpg", "image/avif": "avif"}
DOWNLOADS_AT_ONCE = 4


class FolderUnusable(FanfareError):
    """The folder for the images can't be written to."""

    code = "folder_unusable"


@dataclass
class Saved:
    """What was written, and what could not be had."""

    folder: Path
    originals: list[Path] = field(default_factory=list)
    thumbnails: int = 0
    contact_sheet: Path | None = None
    problems: list[str] = field(default_factory=list)


def check_writable(folder: Path) -> None:
    """Returns if files can be made in the folder, which need not exist yet. Raises `FolderUnusable`.

    Looks at the nearest folder that exists, and leaves nothing behind.
    """
    nearest = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    if not nearest.is_dir():
        raise FolderUnusable(f"{nearest} is not a folder. Choose another with --out.")
    probe = nearest / f".fanfare-{secrets.token_hex(4)}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as exc:
        raise FolderUnusable(
            f"Can't write to {nearest} ({exc.strerror}). Choose another with --out."
        ) from exc


def save(client: Client, job: Job, folder: Path) -> Saved:
    """Writes all that the job has; its own names are replaced, other files stay. Raises `FolderUnusable`."""
    saved = Saved(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "job.json", (json.dumps(job.raw, indent=2, ensure_ascii=False) + "\n").encode())
        _save_contact_sheet(_save_images(client, job, saved), saved)
    except OSError as exc:
        raise FolderUnusable(f"Can't write to {folder}: {exc.strerror or exc}.") from exc
    return saved


def write_whole(path: Path, data: bytes) -> None:
    """Replaces the file at once: nobody ever sees half of it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@dataclass(frozen=True)
class _File:
    """One file to be had."""

    path: Path
    url: str
    bytes: int | None
    prompt: str | None = None  # of an original


def _save_images(client: Client, job: Job, saved: Saved) -> list[_File]:
    """The originals that were saved."""
    files = list(_files(job, saved.folder))
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        problems = list(pool.map(lambda file: _download(client, file), files))
    had = [file for file, problem in zip(files, problems, strict=True) if problem is None]
    originals = [file for file in had if file.prompt is not None]
    saved.problems += [problem for problem in problems if problem]
    saved.originals = [file.path for file in originals]
    saved.thumbnails = len(had) - len(originals)
    return originals


def _files(job: Job, folder: Path) -> Iterator[_File]:
    digits = max(2, len(str(len(job.images))))
    for image in job.images:
        name = f"{image.index + 1:0{digits}}"
        if image.status == "completed" and image.url:
            path = folder / f"{name}.{_extension(image.content_type)}"
            yield _File(path, image.url, image.bytes, image.prompt)
        for one in image.thumbnails:  # named by their longer side, as they were asked for
            path = folder / f"{name}-{max(one.width, one.height)}.{_extension(one.content_type)}"
            yield _File(path, one.url, one.bytes)


def _extension(content_type: str | None) -> str:
    return EXTENSIONS.get(content_type or "", "bin")


def _download(client: Client, file: _File) -> str | None:
    try:
        client.download(file.url, file.path, size=file.bytes)
    except DownloadFailed as exc:
        return f"{file.path.name}: {exc.detail}"
    return None


def _save_contact_sheet(originals: list[_File], saved: Saved) -> None:
    from backend.images import contact_sheet  # with Pillow, which nothing else here needs

    if originals:
        path = saved.folder / "contact-sheet.png"
        write_whole(path, contact_sheet([(file.path.read_bytes(), file.prompt or "") for file in originals]))
        saved.contact_sheet = path

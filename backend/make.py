"""`fanfare make`: one message in, a folder of images out, watched all the way."""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from backend.client.answers import Job
from backend.client.api import ApiProblem, ApiUnreachable, Client
from backend.local_server import LocalServer, local_key
from backend.progress_display import Display
from backend.saved_folder import Saved, check_writable, save
from backend.settings import Settings

ALL_GOOD, NOT_ALL_GOOD = 0, 1
NEW_SERVERS = 3  # how often a local server that goes away under us is replaced


@dataclass(frozen=True)
class MakeOptions:
    """What the user asked for on the command line."""

    request: dict[str, Any]  # as the API takes it
    count: int
    out: Path | None = None  # None: out/<task_id>
    server: str | None = None  # None: the local one, started if need be
    api_key: str | None = None


def make(settings: Settings, options: MakeOptions, console: Console) -> int:
    """Makes the images and saves them. The exit code: 0 if all are there. Raises `FanfareError`."""
    check_writable(options.out or Path("out"))
    if options.server:
        with Client(options.server, api_key=options.api_key) as client:
            return _Making(client, options, console).run()
    with LocalServer(settings, lambda text: console.print(text, style="dim")) as server:
        return _make_locally(server, settings, options, console)


def _make_locally(server: LocalServer, settings: Settings, options: MakeOptions, console: Console) -> int:
    """On the server of this home. Where that ends amid (it was not ours), the job goes on in a new one."""
    task_id: str | None = None
    for left in reversed(range(NEW_SERVERS)):
        url = server.url()
        with Client(url, api_key=options.api_key or local_key(settings, url)) as client:
            making = _Making(client, options, console, task_id)
            try:
                return making.run()
            except ApiUnreachable:
                if not left:
                    raise
                task_id = making.task_id
    raise ApiUnreachable


class _Making:
    """One job on one server."""

    def __init__(
        self, client: Client, options: MakeOptions, console: Console, task_id: str | None = None
    ) -> None:
        self.task_id = task_id  # of the job, once the server has told it
        self._submission = ""  # the idempotency key, once it is on its way
        self._client = client
        self._options = options
        self._console = console

    def run(self) -> int:
        try:
            if self.task_id is None:
                self.task_id = self._submit()
            self._watch(self.task_id)
            job = self._client.job(self.task_id)  # with fresh URLs
            saved = save(self._client, job, self._options.out or Path("out") / self.task_id)
        except KeyboardInterrupt:
            self._cancel()
            raise
        self._summarise(job, saved)
        good = job.status == "completed" and not saved.problems
        return ALL_GOOD if good else NOT_ALL_GOOD

    def _submit(self, *, hurried: bool = False) -> str:
        self._submission = self._submission or str(uuid.uuid4())
        request = self._options.request
        return self._client.submit(request, idempotency_key=self._submission, hurried=hurried).task_id

    def _watch(self, task_id: str) -> None:
        display = Display(self._console, self._options.count)
        with display.showing():
            for update in self._client.follow(task_id):
                display.show(update)

    def _cancel(self) -> None:
        """Also a job whose answer did not come any more: submitted again, it is the same one."""
        if self.task_id is None and not self._submission:
            return
        self._console.print("Canceling ... (Ctrl-C again: at once)", style="yellow")
        with suppress(ApiProblem, ApiUnreachable), self._client.anew() as client:
            self._client = client
            client.cancel(self.task_id or self._submit(hurried=True), hurried=True)

    def _summarise(self, job: Job, saved: Saved) -> None:
        say = self._console.print
        total = job.progress.total or len(job.images)
        style = "green" if job.status == "completed" else "red"
        words = job.status.replace("_", " ")
        folder = escape(str(saved.folder))
        say(
            f"\n[{style}]{words}[/]: {len(saved.originals)} of {total} images in [bold]{folder}[/]",
            highlight=False,
        )
        for path in [*saved.originals, *([saved.contact_sheet] if saved.contact_sheet else [])]:
            say(str(path), markup=False, highlight=False, soft_wrap=True)
        if saved.thumbnails:
            say(f"and {saved.thumbnails} thumbnails", highlight=False)
        for text in _failures(job, saved):
            say(f"[red]{escape(text)}[/]", highlight=False)


def _failures(job: Job, saved: Saved) -> list[str]:
    """All that went wrong, one line each."""
    texts = [f"{job.error.code}: {job.error.message}"] if job.error else []
    texts += [
        f"{image.index + 1:02} {image.error.code}: {image.error.message}"
        for image in job.images
        if image.error and image.status == "failed"
    ]
    return texts + [f"not saved: {problem}" for problem in saved.problems]

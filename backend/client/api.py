"""The client: one server, one method per verb of the API.

It is patient where that is safe: a submit carries an idempotency key, so it may be sent again; the event
stream is taken up where it broke off (`Last-Event-ID`), and where there is none, the job is polled.
"""

import json
import os
import secrets
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
from pydantic import ValidationError

from backend.client.answers import ImageUpdate, Job, JobImage, JobUpdate, ProgressUpdate, Update
from backend.client.event_stream import StreamEvent, read_events
from backend.errors import FanfareError

ATTEMPTS = 6
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
LONGEST_RETRY_AFTER_S = 60.0
SILENCE_S = 45.0  # longer than the server's heartbeat: then the stream is dead
POLL_EVERY_S = 1.0
FAILURES_BEFORE_POLLING = 3
LONGEST_HOLD_S = 20  # of one request that waits for a job's end
TRANSIENT = frozenset({429, 502, 503, 504})


class ApiUnreachable(FanfareError):
    """The server can't be reached."""

    code = "api_unreachable"


class ApiProblem(FanfareError):
    """The server refused the request."""

    code = "api_problem"

    def __init__(self, status: int, detail: str, *, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.http_status = status
        self.wait_s = wait_s


class DownloadFailed(FanfareError):
    """A file could not be downloaded whole."""

    code = "download_failed"

    def __init__(self, detail: str, *, final: bool = False) -> None:
        super().__init__(detail)
        self.final = final  # asking again makes no sense


class Client:
    """Speaks to one server. Every verb raises `ApiUnreachable` or `ApiProblem`. Close it, or use `with`."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 30, attempts: int = ATTEMPTS
    ) -> None:
        """`timeout_s` bounds each read, `attempts` each verb."""
        if not url.startswith(("http://", "https://")):
            raise ApiUnreachable(
                f"{url!r} is not the address of a server: it begins with http:// or https://."
            )
        self.url = url.rstrip("/")
        self._attempts = attempts
        self._anew = partial(Client, self.url, api_key=api_key, timeout_s=timeout_s, attempts=attempts)
        through_proxies = httpx.URL(self.url).host not in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout_s,
            trust_env=through_proxies,
        )
        # for signed URLs, maybe of another host: the key is none of its business
        self._files = httpx.Client(timeout=timeout_s, trust_env=through_proxies, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def anew(self) -> "Client":
        """The same with connections of its own: an interrupt may leave these ones amid a request."""
        return self._anew()

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()
        self._files.close()

    # -- verbs ----------------------------------------------------------------------------------------

    def submit(
        self,
        request: dict[str, Any],
        *,
        pipeline: str = "thumbnails",
        idempotency_key: str | None = None,
        hurried: bool = False,
    ) -> Job:
        """Submits once, however often it has to be sent, and by this key even in several calls."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._parse(
            self._ask("POST", f"/v1/{pipeline}", json=request, headers=headers, **_hurry(hurried=hurried))
        )

    def job(self, task_id: str) -> Job:
        """The job as it is now."""
        return self._parse(self._ask("GET", f"/v1/jobs/{task_id}"))

    def jobs(self, *, limit: int = 20, status: str | None = None) -> list[Job]:
        """The newest jobs, newest first."""
        params = {"limit": str(limit)} | ({"status": status} if status else {})
        return [self._parse(raw) for raw in self._rows("/v1/jobs", params)]

    def cancel(self, task_id: str, *, hurried: bool = False) -> Job:
        """Cancels the job; one that has ended stays as it is. `hurried`: somebody waits to leave."""
        return self._parse(self._ask("POST", f"/v1/jobs/{task_id}/cancel", **_hurry(hurried=hurried)))

    def retry(self, task_id: str) -> Job:
        """Re-runs what failed. Sent once: a second one would be refused."""
        return self._parse(self._ask("POST", f"/v1/jobs/{task_id}/retry", attempts=1))

    def workers(self) -> list[dict[str, Any]]:
        """The live nodes, as the server shows them."""
        return self._rows("/v1/workers")

    def models(self) -> list[dict[str, Any]]:
        """The known models, as the server shows them."""
        return self._rows("/v1/models")

    def wait(self, task_id: str, *, within_s: float) -> Job:
        """The job once it has ended, or as it is when the time is up."""
        deadline = time.monotonic() + within_s
        while True:
            left = deadline - time.monotonic()
            hold = max(0, min(LONGEST_HOLD_S, int(left)))
            headers = {"Prefer": f"wait={hold}"} if hold else {}
            job = self._parse(self._ask("GET", f"/v1/jobs/{task_id}", headers=headers))
            if job.ended or left <= 0:
                return job
            time.sleep(min(0.2, left))

    # -- following ------------------------------------------------------------------------------------

    def follow(self, task_id: str) -> Iterator[Update]:
        """What happens to the job, until it has ended: from the stream, or by polling where there is none."""
        last_id: str | None = None
        failures = 0
        while True:
            heard = False
            for event in self._stream_until_cut(task_id, last_id):
                heard, last_id = True, event.id
                update = _to_update(event)
                if update:
                    yield update
                if isinstance(update, JobUpdate) and update.job.ended:
                    return
            failures = 0 if heard else failures + 1
            job = self.job(task_id)  # tells a broken stream from a server that is gone
            if job.ended or failures >= FAILURES_BEFORE_POLLING:
                yield JobUpdate(job=job)
            if job.ended:
                return
            time.sleep(min(FIRST_PAUSE_S * 2**failures, POLL_EVERY_S))

    def _stream_until_cut(self, task_id: str, last_id: str | None) -> Iterator[StreamEvent]:
        """The events after `last_id`, until the stream ends for whatever reason that may pass."""
        known = last_id
        try:
            for event in self._stream(task_id, last_id):
                if event.id is None:
                    yield StreamEvent(event.name, event.data, known)
                elif event.name == "progress" or event.id != known:
                    known = event.id
                    yield event
        except httpx.TransportError:
            return
        except ApiProblem as problem:
            if problem.http_status not in TRANSIENT:
                raise

    def _stream(self, task_id: str, last_id: str | None) -> Iterator[StreamEvent]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        path, timeout = f"/v1/jobs/{task_id}/events", httpx.Timeout(10, read=SILENCE_S)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.status_code == httpx.codes.NO_CONTENT:  # ended, and all of it was seen
                return
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _problem(response)
            yield from read_events(response.iter_bytes())

    # -- files ----------------------------------------------------------------------------------------

    def download(self, url: str, path: Path, *, size: int | None = None) -> None:
        """Saves the file whole or not at all. Raises `DownloadFailed`; an `OSError` is the disk's."""
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self._download_patiently(url, beside, size)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _download_patiently(self, url: str, path: Path, size: int | None) -> None:
        for attempt in range(self._attempts):
            try:
                return self._download_once(url, path, size)
            except DownloadFailed as exc:
                if exc.final or attempt + 1 == self._attempts:
                    raise
            time.sleep(_pause_s(attempt))
        return None

    def _download_once(self, url: str, path: Path, size: int | None) -> None:
        try:
            with self._files.stream("GET", url) as response, path.open("wb") as file:
                if response.status_code != httpx.codes.OK:
                    code = response.status_code
                    raise DownloadFailed(
                        f"the server answered {code}", final=400 <= code < 500 and code != 429
                    )
                for chunk in response.iter_bytes():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except httpx.HTTPError as exc:
            raise DownloadFailed(f"the download broke off ({type(exc).__name__})") from exc
        if size is not None and path.stat().st_size != size:
            raise DownloadFailed(f"{path.stat().st_size} bytes came, {size} were promised")

    # -- requests -------------------------------------------------------------------------------------

    def _rows(self, path: str, params: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """The rows of a list, be it bare or a page with `results`."""
        answer = self._ask("GET", path, params=params)
        rows = answer.get("results") if isinstance(answer, dict) else answer
        if not isinstance(rows, list):
            raise self._not_fanfare()
        return rows

    def _parse(self, raw: Any) -> Job:  # noqa: ANN401 - JSON, whatever it is
        try:
            return Job.parse(raw)
        except ValidationError as exc:
            raise self._not_fanfare() from exc

    def _not_fanfare(self) -> ApiProblem:
        return ApiProblem(200, f"What answers at {self.url} is not Fanfare's API.")

    def _ask(self, method: str, path: str, *, attempts: int | None = None, **request: Any) -> Any:  # noqa: ANN401 - JSON
        """The answer's JSON. Asks again, with growing pauses, while the server is away or says "later"."""
        attempts = attempts or self._attempts
        for attempt in range(attempts):
            try:
                return self._ask_once(method, path, request)
            except ApiUnreachable:
                if attempt + 1 == attempts:
                    raise
                time.sleep(_pause_s(attempt))
            except ApiProblem as problem:
                if problem.http_status not in TRANSIENT or attempt + 1 == attempts:
                    raise
                time.sleep(min(problem.wait_s or _pause_s(attempt), LONGEST_RETRY_AFTER_S))
        raise ApiUnreachable

    def _ask_once(self, method: str, path: str, request: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as exc:
            raise ApiUnreachable(f"No answer from {self.url} ({str(exc) or type(exc).__name__}).") from exc
        if response.is_success:
            try:
                return response.json()
            except ValueError as exc:
                raise self._not_fanfare() from exc
        raise _problem(response)


def _hurry(*, hurried: bool) -> dict[str, Any]:
    return {"attempts": 2, "timeout": 5.0} if hurried else {}


def _pause_s(attempt: int) -> float:
    return min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)


def _problem(response: httpx.Response) -> ApiProblem:
    """The problem (RFC 9457) that came, as one paragraph for people."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return ApiProblem(response.status_code, f"The server answered {response.status_code}.")
    text = str(body.get("detail") or body.get("title") or f"The server answered {response.status_code}.")
    for error in body.get("errors") or []:
        if isinstance(error, dict) and error.get("detail"):
            text += f"\n  {str(error.get('pointer', '')).removeprefix('#/')}: {error['detail']}"
    seconds = response.headers.get("Retry-After", "")
    return ApiProblem(response.status_code, text, wait_s=float(seconds) if seconds.isdigit() else None)


def _to_update(event: StreamEvent) -> Update | None:
    """What the event means to us; None for events of another kind or shape."""
    try:
        match event.name:
            case "job":
                return JobUpdate(job=Job.parse(_json(event.data)))
            case "image":
                return ImageUpdate(image=JobImage.model_validate_json(event.data))
            case "progress":
                return ProgressUpdate.model_validate_json(event.data)
    except ValidationError:
        return None
    return None


def _json(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        return None

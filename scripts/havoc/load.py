"""The clients: they submit, poll, cancel and retry, come again when they must, and note every answer."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from scripts.havoc.orders import Order

ENDED = ("completed", "partially_completed", "failed", "canceled")
PATIENCE_S = 15.0  # for one answer: a paused database takes its time
COME_AGAIN_S = 0.3
POLL_EVERY_S = 1.5
SUBMITTERS = 4


class Stopped(Exception):
    """The load was stopped."""


@dataclass
class Ledger:
    """Every answer of the API, and what was wrong with it. May be used by many threads at once."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, what: str, answer: httpx.Response, expected: Sequence[int]) -> bool:
        """Whether it is one of those expected. An honest 503 is not, but isn't wrong either."""
        status = answer.status_code
        with self._lock:
            self.answers[str(status)] += 1
            if status in expected:
                return True
            if status != httpx.codes.SERVICE_UNAVAILABLE:
                self.wrong.append(f"{what}: {status} {answer.text[:300]}")
            elif "retry-after" not in answer.headers:
                self.wrong.append(f"{what}: 503 without Retry-After")
            return False

    def refused(self, exc: httpx.TransportError) -> None:
        """There was no answer at all."""
        with self._lock:
            self.answers[type(exc).__name__] += 1

    def not_answered(self) -> int:
        """How often a client had to come again."""
        with self._lock:
            return sum(count for what, count in self.answers.items() if what == "503" or not what.isdigit())


@dataclass
class Placed:
    """An order, and how its client sees it."""

    order: Order
    task_id: str = ""  # empty: not accepted yet
    job: dict[str, Any] = field(default_factory=dict)  # the newest answer
    canceled: bool = False
    retried: bool = False
    gone_back: list[str] = field(default_factory=list)  # ends that did not last

    @property
    def ended(self) -> bool:
        return self.job.get("status") in ENDED

    def take(self, job: dict[str, Any]) -> None:
        """A newer answer."""
        if self.ended and not self.retried and job["status"] != self.job["status"]:
            self.gone_back.append(f"{self.job['status']} became {job['status']}")
        self.job = job


class Client:
    """Speaks to several API processes: where one doesn't answer, the next is asked."""

    def __init__(self, urls: Sequence[str], ledger: Ledger, stopped: threading.Event, turn: int = 0) -> None:
        self._urls = urls
        self._ledger = ledger
        self._stopped = stopped
        self._turn = turn
        self._http = httpx.Client(timeout=PATIENCE_S, trust_env=False)

    def ask(self, method: str, path: str, expected: Sequence[int], **more: Any) -> httpx.Response:  # noqa: ANN401
        """The answer that was expected, or one that is wrong (and noted). Asks until there is one."""
        while not self._stopped.is_set():
            url = self._urls[self._turn % len(self._urls)]
            try:
                answer = self._http.request(method, url + path, **more)
            except httpx.TransportError as exc:
                self._ledger.refused(exc)
            else:
                if self._ledger.note(f"{method} {path}", answer, expected):
                    return answer
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return answer
            self._turn += 1
            self._stopped.wait(COME_AGAIN_S)
        raise Stopped

    def submit(self, order: Order, receiver: str) -> str:
        """The job's id; the same however often it is asked. Empty: it was refused."""
        while True:
            headers = {"Idempotency-Key": order.key}
            answer = self.ask("POST", order.path, (202, 409), headers=headers, **order.request(receiver))
            if answer.status_code != httpx.codes.CONFLICT:  # the first try is still in flight
                return str(answer.json()["task_id"]) if answer.status_code == httpx.codes.ACCEPTED else ""
            self._stopped.wait(COME_AGAIN_S)

    def look(self, placed: Placed) -> None:
        """Polls a job, and does with it what its client has in mind."""
        answer = self.ask("GET", f"/v1/jobs/{placed.task_id}", (200,))
        if answer.status_code != httpx.codes.OK:
            return
        path, job = f"/v1/jobs/{placed.task_id}", answer.json()
        if placed.order.retries and not placed.retried and _can_be_retried(job):
            # It stays open until its next run has ended. 409: the answer of an earlier request was lost
            placed.retried = self.ask("POST", f"{path}/retry", (202, 409)).status_code in (202, 409)
            return
        placed.take(job)
        if placed.order.cancels and not placed.canceled and job["status"] == "in_progress":
            placed.canceled = self.ask("POST", f"{path}/cancel", (200,)).is_success

    def close(self) -> None:
        self._http.close()


def _can_be_retried(job: dict[str, Any]) -> bool:
    return job["status"] in ("failed", "partially_completed") and any(
        one["error"] and one["error"]["retryable"] for one in (*job["images"], *job["items"])
    )


class Load:
    """All clients. They are threads; `stop` ends them wherever they are."""

    def __init__(self, orders: Sequence[Order], urls: Sequence[str], receiver: str) -> None:
        self.placed = [Placed(order) for order in orders]
        self.ledger = Ledger()
        self.begun = 0.0  # time.monotonic()
        self.submitted = threading.Event()
        self._urls = urls
        self._receiver = receiver
        self._stopped = threading.Event()
        submitters = [
            threading.Thread(target=self._submit, args=(turn,), daemon=True) for turn in range(SUBMITTERS)
        ]
        self._threads = [*submitters, threading.Thread(target=self._poll, daemon=True)]

    def start(self) -> None:
        self.begun = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 5)

    def open(self) -> int:
        """Orders that have not come to their end."""
        return sum(not placed.ended for placed in self.placed)

    def client(self) -> Client:
        """One more."""
        return Client(self._urls, self.ledger, threading.Event())

    def _submit(self, turn: int) -> None:
        client = Client(self._urls, self.ledger, self._stopped, turn)
        try:
            for placed in self.placed[turn::SUBMITTERS]:
                wait_s = self.begun + placed.order.at_s - time.monotonic()
                if wait_s > 0 and self._stopped.wait(wait_s):
                    return
                placed.task_id = client.submit(placed.order, self._receiver)
        except Stopped:
            return
        finally:
            client.close()

    def _poll(self) -> None:
        client = Client(self._urls, self.ledger, self._stopped)
        try:
            while not self._stopped.wait(POLL_EVERY_S):
                for placed in self.placed:
                    if placed.task_id and not placed.ended:
                        client.look(placed)
        except Stopped:
            return
        finally:
            client.close()

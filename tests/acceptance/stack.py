"""The whole system as real processes: API, CPU worker with beat, nodes. A test may kill any of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.leash import Leash
from tests.services import free_port

START_WITHIN_S = 120.0  # seconds are usual; other tests compute at the same time
END_WITHIN_S = 120.0
ASK_FOR_S = 30  # at a time
STOP_WITHIN_S = 40.0
ENDED = ("completed", "partially_completed", "failed", "canceled")

COMMANDS = {
    "api": ["-m", "backend.cli", "api"],
    "worker": ["-m", "backend.cli", "worker", "--with-beat"],
    "node": ["-m", "gpu_worker"],
}


@dataclass
class Part:
    """One process of the stack."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """SIGKILL to the process and all of its children, as when a machine dies."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_WITHIN_S)

    def left_running(self) -> list[str]:
        """Processes of this part that live on without it. One that is dead and not yet buried isn't one."""
        listed = subprocess.run(
            ["ps", "-e", "-o", "pgid=,stat=,args="], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        rows = [line.split(None, 2) for line in listed]
        return [line for line, row in zip(listed, rows, strict=True)
                if row[0] == str(self.process.pid) and not row[1].startswith("Z")]  # fmt: skip


@dataclass
class Stack:
    """Where it is, and how to steer it."""

    folder: Path
    env: dict[str, str]
    leash: Leash
    source: Path = Path(__file__).parents[2]  # whose code runs
    port: int = field(default_factory=free_port)
    parts: list[Part] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The API's."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, kind: str, **env: str) -> Part:
        """One more process."""
        log = self.folder / f"{kind}-{len(self.parts)}.log"
        own = {
            "FANFARE_HOME": str(self.folder / "home"), "FANFARE_API_PORT": str(self.port),
            "FANFARE_PUBLIC_URL": self.url, "FANFARE_STORAGE_URL": (self.folder / "files").as_uri(),
            "FANFARE_NODE_NAME": f"node-{len(self.parts)}", "FANFARE_WORKER_CONCURRENCY": "2",
            "FANFARE_UPLOAD_TIMEOUT_S": "60", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default",
        }  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *COMMANDS[kind]], cwd=self.source, stdin=subprocess.DEVNULL,
                env=os.environ | own | self.leash.mark | self.env | env, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.leash.hold(process.pid)
        part = Part(kind, process, log)
        self.parts.append(part)
        return part

    def start_all(self, **env: str) -> None:
        """One of each, ready."""
        for kind in COMMANDS:
            self.start(kind, **env)
        self.wait_until_ready()
        self.wait_for_node()
        dead = [part.name for part in self.parts if part.process.poll() is not None]
        assert not dead, f"{dead}\n{self.logs()}"

    def wait_until_ready(self) -> None:
        """Returns when /readyz says so."""
        self.until(lambda: httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200)

    def wait_for_node(self, count: int = 1) -> None:
        """Returns when so many nodes take work."""

        def there() -> bool:
            workers = httpx.get(f"{self.url}/v1/workers", timeout=10).json()["results"]
            return bool(sum(worker["state"] == "ready" for worker in workers) >= count)

        self.until(there)

    def until(self, condition: Any, within_s: float = START_WITHIN_S) -> None:
        """Returns when the condition holds; a refused connection is a no. Fails with the logs."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if condition():
                    return
            time.sleep(0.1)
        raise AssertionError(f"it did not come to pass in {within_s} s\n{self.logs()}")

    def waiting_in(self, queue: str) -> float:
        """Messages in the broker's queue that nobody has taken."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(
            sample.value
            for sample in samples
            if sample.name == "fanfare_queue_messages" and sample.labels["queue"] == queue
        )

    def logs(self) -> str:
        """The end of each process's log."""
        return "\n".join(f"--- {part.log.name}\n{part.log.read_text()[-4000:]}" for part in self.parts)

    # -- the API --------------------------------------------------------------------------------------

    def submit(self, **values: Any) -> str:
        """Sends a message; its task_id."""
        given = {"message": "a lighthouse in a storm", "count": 4, "width": 128, "height": 128}
        answer = httpx.post(f"{self.url}/v1/thumbnails", json=given | values, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def job(self, task_id: str, wait: int = 0) -> dict[str, Any]:
        """The job."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        answer = httpx.get(f"{self.url}/v1/jobs/{task_id}", headers=headers, timeout=wait + 30)
        job: dict[str, Any] = answer.raise_for_status().json()
        return job

    def ended(self, task_id: str, within_s: float = END_WITHIN_S) -> dict[str, Any]:
        """The job at its end. Fails with the logs."""
        end = time.monotonic() + within_s
        job = self.job(task_id, wait=ASK_FOR_S)
        while job["status"] not in ENDED and time.monotonic() < end:
            job = self.job(task_id, wait=ASK_FOR_S)
        assert job["status"] in ENDED, f"{job}\n{self.logs()}"
        return job

    def events(self, task_id: str) -> list[tuple[int, str]]:
        """The durable log of a job that has ended, as (id, type or status)."""
        found = []
        text = httpx.get(f"{self.url}/v1/jobs/{task_id}/events", timeout=30).text
        for block in text.split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
            if "id" in fields:
                data = json.loads(fields["data"])
                found.append((int(fields["id"]), data.get("type", data["status"])))
        return found


@contextlib.contextmanager
def stack(folder: Path, **env: str) -> Iterator[Stack]:
    """A stack without processes yet; those that are started end with it."""
    with Leash() as leash:
        made = Stack(folder, {name: value for name, value in env.items() if value}, leash)
        try:
            yield made
        finally:
            for part in made.parts:
                if part.process.poll() is None:
                    part.process.terminate()
            for part in made.parts:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.process.wait(STOP_WITHIN_S)
                part.kill()
                leash.release(part.process.pid)

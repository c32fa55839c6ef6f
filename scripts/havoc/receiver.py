"""Receives the webhooks of all jobs, and now and then refuses one at first."""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REFUSED_AT_FIRST = 20  # one of so many


@dataclass(frozen=True)
class Delivery:
    """One webhook that came and was accepted."""

    webhook_id: str
    type: str
    task_id: str


class Receiver(ThreadingHTTPServer):
    """Remembers what it accepted."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.accepted: list[Delivery] = []
        self.tries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, delivery: Delivery) -> bool:
        """Whether it is accepted."""
        with self._lock:
            self.tries[delivery.webhook_id] += 1
            digest = hashlib.sha256(delivery.webhook_id.encode()).digest()
            if self.tries[delivery.webhook_id] == 1 and digest[0] % REFUSED_AT_FIRST == 0:
                return False
            self.accepted.append(delivery)
            return True


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        taken = self.server.take(Delivery(self.headers["webhook-id"], body["type"], body["data"]["task_id"]))
        self.send_response(204 if taken else 503)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Receives for the length of the block."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()

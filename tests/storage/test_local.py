"""What only files can get wrong: links, folders, full disks, files that lie about."""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.errors import InvalidKey, ObjectNotFound, StorageUnavailable
from backend.storage.base import Unfinished
from backend.storage.draft import ABANDONED_AFTER_S
from backend.storage.local import DRAFTS, LocalStorage
from backend.storage.signing import Signer


def files_under(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


def test_nothing_is_made_before_the_first_write(local_storage: LocalStorage, root: Path) -> None:
    with pytest.raises(ObjectNotFound):
        local_storage.get("a.png", max_bytes=1)
    local_storage.delete(["a.png", "a/b.png"])

    assert not root.exists()


def test_a_key_is_a_path_and_no_draft_stays(local_storage: LocalStorage, root: Path) -> None:
    local_storage.put("jobs/1/a.png", b"x", "image/png")

    assert files_under(root) == ["jobs/1/a.png"]


def test_delete_takes_empty_folders_with_it(local_storage: LocalStorage, root: Path) -> None:
    local_storage.put("jobs/1/a.png", b"x", "image/png")
    local_storage.put("jobs/2/a.png", b"x", "image/png")

    local_storage.delete(["jobs/1/a.png"])

    assert not (root / "jobs/1").exists()
    assert (root / "jobs/2").exists()


def test_links_that_lead_out_are_not_followed(local_storage: LocalStorage, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "secret.txt").write_text("secret")
    root.mkdir()
    (root / "out").symlink_to(outside)
    (root / "file.txt").symlink_to(outside / "secret.txt")
    (root / "loop").symlink_to(root / "loop")

    for verb in (
        lambda: local_storage.get("out/secret.txt", max_bytes=100),
        lambda: local_storage.put("out/new.txt", b"x", "text/plain"),
        lambda: local_storage.delete(["out/secret.txt"]),
    ):
        with pytest.raises(InvalidKey):
            verb()
    for key in ("file.txt", "loop/a.txt", "loop"):
        with pytest.raises(ObjectNotFound):
            local_storage.get(key, max_bytes=100)
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_writing_over_a_link_replaces_the_link(local_storage: LocalStorage, root: Path) -> None:
    victim = root.parent / "victim.txt"
    victim.parent.mkdir(parents=True, exist_ok=True)
    victim.write_text("keep me")
    root.mkdir()
    (root / "file.txt").symlink_to(victim)

    local_storage.put("file.txt", b"new", "text/plain")

    assert victim.read_text() == "keep me"
    assert local_storage.get("file.txt", max_bytes=3) == b"new"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "files").symlink_to(tmp_path / "disk")
    storage = LocalStorage(
        tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"s")
    )

    storage.put("a/b.txt", b"x", "text/plain")

    assert (tmp_path / "disk/a/b.txt").read_bytes() == b"x"


def test_a_folder_is_no_object(local_storage: LocalStorage) -> None:
    local_storage.put("a/b.txt", b"x", "text/plain")

    with pytest.raises(ObjectNotFound):
        local_storage.get("a", max_bytes=1)
    with pytest.raises(ObjectNotFound):
        local_storage.get("a/b.txt/c.txt", max_bytes=1)
    with pytest.raises(InvalidKey):
        local_storage.put("a", b"x", "application/octet-stream")
    with pytest.raises(InvalidKey):
        local_storage.put("a/b.txt/c.txt", b"x", "text/plain")
    local_storage.delete(["a", "a/b.txt/c.txt"])
    assert local_storage.get("a/b.txt", max_bytes=1) == b"x"


@pytest.mark.timeout(10)
def test_a_pipe_is_no_object_and_blocks_nobody(local_storage: LocalStorage, root: Path) -> None:
    root.mkdir(parents=True)
    os.mkfifo(root / "pipe.txt")

    with pytest.raises(ObjectNotFound):
        local_storage.get("pipe.txt", max_bytes=1)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_object_and_nothing_else(
    local_storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    local_storage.put("a/b.txt", b"old", "text/plain")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageUnavailable) as raised:
            local_storage.put("a/b.txt", b"new", "text/plain")
        with pytest.raises(StorageUnavailable):
            local_storage.check()

    assert isinstance(raised.value.__cause__, OSError)
    assert str(root) not in raised.value.detail
    assert files_under(root) == ["a/b.txt"]
    assert local_storage.get("a/b.txt", max_bytes=3) == b"old"


def test_a_write_that_stops_half_way_leaves_nothing(root: Path) -> None:
    """For real: the kernel itself refuses after 64 KiB."""
    script = f"""
import resource, signal
from pathlib import Path
from backend.errors import StorageUnavailable
from backend.storage.local import LocalStorage
from backend.storage.signing import Signer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
storage = LocalStorage(Path({str(root)!r}), public_url="http://p", node_url="http://n", signer=Signer(b"s"))
try:
    storage.put("a/b.bin", bytes(200_000), "application/octet-stream")
except StorageUnavailable:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.strip() == "refused"
    assert files_under(root) == []


def test_a_folder_that_may_not_be_written() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "files"
        root.mkdir(mode=0o500)
        storage = LocalStorage(root, public_url="http://p", node_url="http://n", signer=Signer(b"s"))

        with nobody(folder), pytest.raises(StorageUnavailable):
            storage.check()


@contextlib.contextmanager
def nobody(folder: str) -> Iterator[None]:
    """Root may write anywhere, so it is somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    Path(folder).chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("not a folder")
    storage = LocalStorage(
        tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"s")
    )

    with pytest.raises(StorageUnavailable):
        storage.check()


def test_drafts_of_the_dead_are_forgotten_and_live_ones_kept(local_storage: LocalStorage, root: Path) -> None:
    drafts = root / DRAFTS
    drafts.mkdir(parents=True)
    (drafts / "old").write_text("left behind")
    (drafts / "live").write_text("in the making")
    long_ago = time.time() - ABANDONED_AFTER_S - 60
    os.utime(drafts / "old", (long_ago, long_ago))

    local_storage.put("a.txt", b"x", "text/plain")

    assert [path.name for path in drafts.iterdir()] == ["live"]


def test_drafts_of_the_dead_are_counted_before_they_go(local_storage: LocalStorage, root: Path) -> None:
    drafts = root / DRAFTS
    drafts.mkdir(parents=True)
    (drafts / "old").write_text("left behind")
    (drafts / "live").write_text("in the making")
    long_ago = time.time() - ABANDONED_AFTER_S - 60
    os.utime(drafts / "old", (long_ago, long_ago))

    would, did = local_storage.forget_unfinished(dry_run=True), local_storage.forget_unfinished()

    assert would == did == Unfinished(1, len("left behind"))
    assert [path.name for path in drafts.iterdir()] == ["live"]
    assert list(local_storage.walk("")) == []


def test_a_walk_passes_over_links_and_what_is_no_key(local_storage: LocalStorage, root: Path) -> None:
    local_storage.put("jobs/1/a.png", b"x", "image/png")
    (root / "jobs/1/not a key.png").touch()
    (root / "jobs/.hidden").touch()
    (root / "jobs/link.png").symlink_to(root / "jobs/1/a.png")
    (root / "jobs/2").symlink_to(root / "jobs/1")
    (root / "jobs/1/loop").symlink_to(root / "jobs")
    os.mkfifo(root / "jobs/pipe")

    assert [one.key for one in local_storage.walk("")] == ["jobs/1/a.png"]


def test_a_folder_that_can_not_be_read_is_no_empty_one(tmp_path: Path) -> None:
    storage = LocalStorage(
        tmp_path / ("x" * 300), public_url="http://p", node_url="http://n", signer=Signer(b"s")
    )

    with pytest.raises(StorageUnavailable):
        list(storage.walk(""))


def test_writing_and_deleting_in_one_folder_at_the_same_time(local_storage: LocalStorage) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _ in range(100):
                local_storage.put(f"jobs/1/2/{number}.txt", b"x", "text/plain")
                local_storage.delete([f"jobs/1/2/{number}.txt"])
        except (StorageUnavailable, InvalidKey) as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_an_open_object_stays_as_it_is(local_storage: LocalStorage) -> None:
    local_storage.put("a.txt", b"first", "text/plain")
    opened = local_storage.open("a.txt")

    local_storage.put("a.txt", b"second", "text/plain")
    local_storage.delete(["a.txt"])

    assert opened.read_at(0, 100) == b"first"
    assert opened.read_at(3, 100) == b"st"
    opened.close()


def test_urls_for_clients_and_nodes(local_storage: LocalStorage) -> None:
    download = local_storage.download_url("jobs/1/a.png", expires_in=60)
    upload = local_storage.upload_url("jobs/1/a.png", content_type="image/png", max_bytes=9, expires_in=60)
    for_nodes = local_storage.node_download_url("jobs/1/a.png", expires_in=60)

    assert for_nodes.url.startswith("http://node.test:8000/v1/files/jobs/1/a.png?expires=")
    assert download.url.startswith("http://public.test:8000/v1/files/jobs/1/a.png?expires=")
    assert upload.url.startswith("http://node.test:8000/v1/files/jobs/1/a.png?expires=")
    query = parse_qs(urlsplit(upload.url).query)
    assert (query["content_type"], query["max_bytes"]) == (["image/png"], ["9"])


def test_a_download_url_stays_the_same_for_a_while(
    local_storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = set()
    for passed in range(0, 1800, 100):
        monkeypatch.setattr(time, "time", lambda passed=passed: 1_800_000_001 + passed)
        urls.add(local_storage.download_url("a.png", expires_in=3600).url)

    assert len(urls) <= 2

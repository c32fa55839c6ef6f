"""What every adapter promises."""

import itertools
import threading
import time
import uuid

import pytest

from backend.errors import InvalidKey, ObjectNotFound, ObjectTooLarge
from backend.storage.base import Storage

DATA = bytes(range(256)) * 40


@pytest.fixture
def folder() -> str:
    return f"jobs/{uuid.uuid4()}"


def test_what_was_put_is_got(storage: Storage, folder: str) -> None:
    key = f"{folder}/000/original.webp"

    storage.put(key, DATA, "image/webp")

    assert storage.get(key, max_bytes=len(DATA)) == DATA
    found = storage.stat(key)
    assert (found.key, found.bytes, found.content_type) == (key, len(DATA), "image/webp")
    assert found.etag
    assert '"' not in found.etag


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [
        ("png", "image/png"),
        ("jpeg", "image/jpeg"),
        ("avif", "image/avif"),
        ("json", "application/json"),
        ("bin", "application/octet-stream"),
    ],
)
def test_the_content_type_is_kept(storage: Storage, folder: str, extension: str, content_type: str) -> None:
    storage.put(f"{folder}/it.{extension}", b"x", content_type)

    assert storage.stat(f"{folder}/it.{extension}").content_type == content_type


def test_a_content_type_that_the_key_denies_is_refused(storage: Storage, folder: str) -> None:
    with pytest.raises(InvalidKey):
        storage.put(f"{folder}/it.png", b"<script>", "text/html")
    with pytest.raises(InvalidKey):
        storage.upload_url(f"{folder}/it.png", content_type="text/html", max_bytes=1, expires_in=60)

    with pytest.raises(ObjectNotFound):
        storage.stat(f"{folder}/it.png")


def test_an_empty_object_is_an_object(storage: Storage, folder: str) -> None:
    storage.put(f"{folder}/empty.txt", b"", "text/plain")

    assert storage.get(f"{folder}/empty.txt", max_bytes=0) == b""
    assert storage.stat(f"{folder}/empty.txt").bytes == 0


def test_the_same_key_again_replaces(storage: Storage, folder: str) -> None:
    key = f"{folder}/a.webp"
    storage.put(key, DATA, "image/webp")
    before = storage.stat(key)

    storage.put(key, b"shorter", "image/webp")

    assert storage.get(key, max_bytes=100) == b"shorter"
    assert storage.stat(key).etag != before.etag


def test_a_reader_never_sees_half_of_it(storage: Storage, folder: str) -> None:
    key, versions = f"{folder}/a.bin", [bytes([number]) * 300_000 for number in range(2)]
    storage.put(key, versions[0], "application/octet-stream")
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append(storage.get(key, max_bytes=300_000))

    reader = threading.Thread(target=read)
    reader.start()
    for round_ in range(10):
        storage.put(key, versions[round_ % 2], "application/octet-stream")
    done.set()
    reader.join()

    assert seen
    assert all(data in versions for data in seen)


def test_what_is_not_there(storage: Storage, folder: str) -> None:
    with pytest.raises(ObjectNotFound):
        storage.get(f"{folder}/none.webp", max_bytes=10)
    with pytest.raises(ObjectNotFound):
        storage.stat(f"{folder}/none.webp")


def test_too_large_to_get(storage: Storage, folder: str) -> None:
    storage.put(f"{folder}/a.webp", DATA, "image/webp")

    with pytest.raises(ObjectTooLarge):
        storage.get(f"{folder}/a.webp", max_bytes=len(DATA) - 1)


def test_delete_takes_what_is_named_and_nothing_else(storage: Storage, folder: str) -> None:
    keys = [f"{folder}/{number:03d}/original.png" for number in range(3)]
    for key in keys:
        storage.put(key, b"x", "image/png")

    storage.delete([keys[0], keys[0], f"{folder}/never/there.png", keys[1]])
    storage.delete([])

    for key in keys[:2]:
        with pytest.raises(ObjectNotFound):
            storage.stat(key)
    assert storage.stat(keys[2]).bytes == 1


def test_a_walk_finds_what_is_there_and_nothing_else(storage: Storage, folder: str) -> None:
    # Given some objects, one of which is deleted again
    keys = [f"{folder}/{number:03d}/{name}.png" for number in range(3) for name in ("a", "b")]
    for key in [*keys, f"{folder}/mask.png", f"{folder}/gone.png", f"{folder}-other/a.png"]:
        storage.put(key, DATA[: len(key)], "image/png")
    storage.delete([f"{folder}/gone.png"])
    # When somebody looks through the folder
    found = list(storage.walk(f"{folder}/"))
    # Then each is there once, with size and age, and those of one folder come together
    assert sorted(one.key for one in found) == [*keys, f"{folder}/mask.png"]
    assert all(one.bytes == len(one.key) for one in found)
    assert all(abs(one.modified.timestamp() - time.time()) < 60 for one in found)
    assert all(one.modified.tzinfo is not None for one in found)
    folders = [key.rpartition("/")[0] for key in (one.key for one in found) if "mask" not in key]
    assert len(list(itertools.groupby(folders))) == 3


def test_a_walk_takes_any_beginning_of_a_key(storage: Storage, folder: str) -> None:
    for name in ("a1.png", "a2.png", "b.png", "a/b.png"):
        storage.put(f"{folder}/{name}", b"x", "image/png")

    def found(prefix: str) -> list[str]:
        return sorted(one.key.removeprefix(f"{folder}/") for one in storage.walk(prefix))

    assert found(f"{folder}/a") == ["a/b.png", "a1.png", "a2.png"]
    assert found(f"{folder}/a/") == ["a/b.png"]
    assert found(f"{folder}/b.png") == ["b.png"]
    assert found(f"{folder}/c") == found(f"{folder}/b.png/") == found(f"{folder}/none/at/all") == []
    assert {f"{folder}/{name}" for name in ("b.png", "a/b.png")} <= {one.key for one in storage.walk("")}


def test_what_is_found_may_be_deleted_on_the_way(storage: Storage, folder: str) -> None:
    for number in range(5):
        storage.put(f"{folder}/{number}/a.png", b"x", "image/png")

    for one in storage.walk(f"{folder}/"):
        storage.delete([one.key])

    assert list(storage.walk(f"{folder}/")) == []


@pytest.mark.parametrize("prefix", ["/", "../", "jobs/../", ".drafts/", "a//", "ä"])
def test_a_prefix_that_no_key_has(storage: Storage, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        list(storage.walk(prefix))


def test_what_is_finished_is_not_unfinished(storage: Storage, folder: str) -> None:
    storage.put(f"{folder}/a.png", b"x", "image/png")

    assert storage.forget_unfinished().count == 0
    assert storage.stat(f"{folder}/a.png").bytes == 1


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "/etc/passwd", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", "a/..", "a/./b", ".hidden",
        "a/.b", "a b", "a\\b", "a%2fb", "a\x00b", "a\nb", "a.webp\n", "ä", "a?b", "a#b", "~a", "a:b",
        "x" * 201, "ab/" * 200 + "a",
    ],
)  # fmt: skip
def test_a_key_that_is_none(storage: Storage, key: str) -> None:
    for verb in (
        lambda: storage.put(key, b"x", "application/octet-stream"),
        lambda: storage.get(key, max_bytes=1),
        lambda: storage.stat(key),
        lambda: storage.delete([key]),
        lambda: storage.download_url(key, expires_in=60),
        lambda: storage.node_download_url(key, expires_in=60),
        lambda: storage.upload_url(key, content_type="application/octet-stream", max_bytes=1, expires_in=60),
    ):
        with pytest.raises(InvalidKey):
            verb()


def test_a_wrong_key_among_right_ones_deletes_nothing(storage: Storage, folder: str) -> None:
    storage.put(f"{folder}/a.png", b"x", "image/png")

    with pytest.raises(InvalidKey):
        storage.delete([f"{folder}/a.png", "../b"])

    assert storage.stat(f"{folder}/a.png").bytes == 1


def test_the_check_passes_and_leaves_nothing(storage: Storage) -> None:
    storage.check()


@pytest.mark.parametrize("expires_in", [60, 3600, 86400, 7 * 86400])
def test_a_download_url_lives_at_least_as_long_as_asked(storage: Storage, expires_in: int) -> None:
    for signed in (
        storage.download_url("jobs/a.png", expires_in=expires_in),
        storage.node_download_url("jobs/a.png", expires_in=expires_in),
    ):
        left = signed.expires_at.timestamp() - time.time()
        assert expires_in - 1 <= left <= expires_in * 1.5 + 2
        assert signed.expires_at.tzinfo is not None


def test_an_upload_url_says_when_it_ends_and_what_it_takes(storage: Storage) -> None:
    signed = storage.upload_url("jobs/a.png", content_type="image/png", max_bytes=7, expires_in=60)

    assert signed.max_bytes == 7
    assert signed.headers["Content-Type"] == "image/png"
    assert 58 <= signed.expires_at.timestamp() - time.time() <= 60

"""What only Supabase Storage can get wrong: tokens, buckets, keys that may too little, broken answers."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from backend.errors import InvalidKey, ObjectNotFound, ObjectTooLarge, StorageUnavailable
from backend.storage import supabase as adapter
from backend.storage import supabase_client
from backend.storage.supabase import CACHE_CONTROL, SupabaseStorage
from gpu_worker.upload import Uploader, UploadFailed
from tests.services import free_port
from tests.storage import supabase_server
from tests.storage.supabase_server import (
    ANON_KEY,
    FOREIGN_KEY,
    Bucket,
    Fault,
    SupabaseServer,
    cuts_after,
    cuts_amid,
    cuts_before,
    drips,
    garbles,
    instead_of_objects,
    refuses,
    says,
)

KEY = "jobs/1/000/original.png"
NAME = f"fanfare/{KEY}"
BODY = b"not really a picture" * 1000
PAGE = b"<!doctype html><html>We'll be back soon</html>"

Verb = Callable[[SupabaseStorage], object]
VERBS: dict[str, Verb] = {
    "put": lambda storage: storage.put(KEY, BODY, "image/png"),
    "get": lambda storage: storage.get(KEY, max_bytes=len(BODY)),
    "stat": lambda storage: storage.stat(KEY),
    "delete": lambda storage: storage.delete([KEY]),
    "walk": lambda storage: list(storage.walk("")),
    "download_url": lambda storage: storage.download_url(KEY, expires_in=60),
    "node_download_url": lambda storage: storage.node_download_url(KEY, expires_in=60),
    "upload_url": lambda storage: storage.upload_url(
        KEY, content_type="image/png", max_bytes=10**6, expires_in=60
    ),
    "check": lambda storage: storage.check(),
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supabase_client, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def uploader() -> Iterator[Uploader]:
    """A node's."""
    uploader = Uploader(5, first_pause_s=0.01)
    yield uploader
    uploader.close()


# -- signed URLs --------------------------------------------------------------------------------------


def test_a_node_uploads_with_a_plain_put_and_a_browser_downloads_with_a_plain_get(
    supabase: SupabaseServer, supabase_storage: SupabaseStorage
) -> None:
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)

    answer = httpx.put(upload.url, content=BODY, headers=upload.headers)

    assert answer.status_code == 200
    found = supabase_storage.stat(KEY)
    assert (found.bytes, found.content_type) == (len(BODY), "image/png")
    assert supabase.objects["images", NAME].cache_control == CACHE_CONTROL
    download = httpx.get(supabase_storage.download_url(KEY, expires_in=60).url)
    assert (download.status_code, download.content) == (200, BODY)
    assert download.headers["content-type"] == "image/png"


def test_a_node_may_upload_twice_and_another_picture(
    supabase_storage: SupabaseStorage, uploader: Uploader
) -> None:
    """It does where the first answer was lost. What was said of other bytes is no longer said."""
    supabase_storage.put(KEY, b"of an earlier run", "image/png")
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)

    uploader.put(upload, b"once", seconds_left=5)
    uploader.put(upload, BODY, seconds_left=5)

    assert supabase_storage.get(KEY, max_bytes=len(BODY)) == BODY


def test_an_upload_whose_answer_was_lost_is_made_again(
    supabase: SupabaseServer, supabase_storage: SupabaseStorage, uploader: Uploader
) -> None:
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)
    supabase.faults = [cuts_after, None]

    uploader.put(upload, BODY, seconds_left=5)

    assert [line.split("?")[0].split("/")[0] for line in supabase.seen[-2:]] == ["PUT ", "PUT "]
    assert supabase.objects["images", NAME].data == BODY


@pytest.mark.parametrize(
    ("old", "new"),
    [("/000/original.png", "/001/original.png"), ("token=e30", "token=e31"), ("?token=e30.", "?token=e30.0")],
)
def test_a_tampered_url_is_refused(supabase_storage: SupabaseStorage, old: str, new: str) -> None:
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)
    assert old in upload.url

    answer = httpx.put(upload.url.replace(old, new), content=b"x", headers=upload.headers)

    assert answer.is_error or old == "token=e30"  # the header of a token says nothing
    with pytest.raises(ObjectNotFound):
        supabase_storage.stat("jobs/1/001/original.png")


def test_an_upload_url_is_not_good_for_reading(supabase_storage: SupabaseStorage) -> None:
    supabase_storage.put(KEY, b"x", "image/png")
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)

    assert httpx.get(upload.url.replace("/upload/sign/", "/sign/")).is_error


def test_an_upload_url_lives_as_long_as_the_server_says_and_not_longer(supabase: SupabaseServer) -> None:
    def seconds(expires_in: int) -> float:
        upload = supabase.storage().upload_url(
            KEY, content_type="image/png", max_bytes=1, expires_in=expires_in
        )
        return (upload.expires_at - datetime.now(UTC)).total_seconds()

    assert 7000 < seconds(24 * 3600) < 7200  # two hours, and clocks that differ
    assert 58 < seconds(60) <= 60
    supabase.upload_s = 600
    assert 500 < seconds(24 * 3600) < 600


def test_a_client_is_told_the_same_upload_url_for_a_while(supabase: SupabaseServer) -> None:
    storage = supabase.storage(public_url="https://project.example.com")

    first, second = (
        storage.client_upload_url(KEY, content_type="image/png", max_bytes=9, expires_in=600)
        for _ in range(2)
    )

    assert first.url == second.url
    assert first.url.startswith("https://project.example.com/storage/v1/object/upload/sign/images/")
    assert len(supabase.seen) == 1
    # But not one that ends too soon
    supabase.upload_s = 600
    short = supabase.storage()
    for _ in range(2):
        upload = short.client_upload_url(KEY, content_type="image/png", max_bytes=9, expires_in=24 * 3600)
        assert (upload.expires_at - datetime.now(UTC)).total_seconds() < 600
    assert len(supabase.seen) == 3


def test_what_is_public_may_be_kept_for_longer(supabase: SupabaseServer) -> None:
    storage = supabase.storage()

    storage.put("a.png", b"x", "image/png", public=True)
    storage.put("b.png", b"x", "image/png")

    kept = [supabase.objects["images", f"fanfare/{name}"].cache_control for name in ("a.png", "b.png")]
    assert kept == ["max-age=31536000", "max-age=604800"]


def test_a_node_that_comes_too_late_asks_for_another_url(
    supabase: SupabaseServer, supabase_storage: SupabaseStorage, uploader: Uploader
) -> None:
    """Also if its own clock says that it is in time: the answer tells."""
    supabase.upload_s = 0
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=600)
    by_a_slow_clock = upload.model_copy(update={"expires_at": datetime(2100, 1, 1, tzinfo=UTC)})

    for one in (upload, by_a_slow_clock):
        with pytest.raises(UploadFailed) as raised:
            uploader.put(one, BODY, seconds_left=5)
        assert raised.value.failure.code == "upload_expired"
        assert raised.value.failure.retryable


@pytest.mark.parametrize(
    ("limits", "retryable", "word"),
    [
        (Bucket(file_size_limit=100), False, "larger"),
        (Bucket(allowed_mime_types=["video/mp4"]), False, "refused"),
    ],
)
def test_a_node_hears_what_the_bucket_does_not_take(
    supabase: SupabaseServer,
    supabase_storage: SupabaseStorage,
    uploader: Uploader,
    limits: Bucket,
    retryable: bool,
    word: str,
) -> None:
    upload = supabase_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)
    supabase.buckets["images"] = limits

    with pytest.raises(UploadFailed) as raised:
        uploader.put(upload, BODY, seconds_left=5)

    assert raised.value.failure.retryable is retryable
    assert word in raised.value.failure.message


def test_an_expired_download_url_is_refused(supabase: SupabaseServer) -> None:
    storage = supabase.storage()
    storage.put(KEY, b"x", "image/png")
    url = storage.node_download_url(KEY, expires_in=1).url
    assert httpx.get(url).content == b"x"

    time.sleep(2)

    assert httpx.get(url).status_code == 400


def test_clients_and_nodes_may_see_other_addresses(supabase: SupabaseServer) -> None:
    storage = supabase.storage(
        public_url="https://project.example.com", node_url="http://10.0.0.7:8000/project/"
    )
    storage.put(KEY, BODY, "image/png")

    download = urlsplit(storage.download_url(KEY, expires_in=60).url)
    upload = urlsplit(storage.upload_url(KEY, content_type="image/png", max_bytes=9, expires_in=60).url)
    for_nodes = urlsplit(storage.node_download_url(KEY, expires_in=60).url)

    assert (download.scheme, download.netloc) == ("https", "project.example.com")
    assert download.path == f"/storage/v1/object/sign/images/{NAME}"
    assert upload.netloc == for_nodes.netloc == "10.0.0.7:8000"
    assert upload.path == f"/project/storage/v1/object/upload/sign/images/{NAME}"
    assert for_nodes.path == f"/project/storage/v1/object/sign/images/{NAME}"
    assert httpx.get(f"{supabase.url}{download.path}?{download.query}").content == BODY


def test_urls_are_signed_together_and_stay_the_same_for_a_while(supabase: SupabaseServer) -> None:
    # Given more objects than are signed at once
    storage = supabase.storage()
    keys = [f"many/{number:04d}.png" for number in range(2100)]
    for key in keys:
        supabase.objects["images", f"fanfare/{key}"] = supabase_server.Stored(
            b"x", "image/png", "", {}, "", "2026-01-01T00:00:00Z"
        )
    # When their URLs are asked for, some of them twice
    signed = storage.download_urls([*keys, *keys[:5]], expires_in=3600)
    # Then the server was asked three times, and each URL is for its object
    assert [line.split(" ")[0] for line in supabase.seen] == ["POST"] * 3
    assert all(f"/fanfare/{key}?token=" in one.url for key, one in zip(keys, signed, strict=False))
    assert signed[2100:] == signed[:5]
    # And whoever asks again gets the same
    time.sleep(1.1)
    assert storage.download_urls(keys, expires_in=3600) == signed[:2100]
    assert len(supabase.seen) == 3
    # But not if it would end too soon
    assert storage.download_url(keys[0], expires_in=7200) != signed[0]


def test_what_is_not_there_yet_gets_a_url_that_is_refused_and_later_a_good_one(
    supabase_storage: SupabaseStorage,
) -> None:
    supabase_storage.put("jobs/there.png", b"x", "image/png")

    there, early = supabase_storage.download_urls(["jobs/there.png", KEY], expires_in=60)
    supabase_storage.put(KEY, BODY, "image/png")
    late = supabase_storage.download_url(KEY, expires_in=60)

    assert httpx.get(there.url).content == b"x"
    assert httpx.get(early.url).is_error
    assert httpx.get(late.url).content == BODY


# -- what the server says once, and what it says for ever ----------------------------------------------

PASSING: dict[str, Fault] = {
    "503 page": says(503, PAGE),
    "200 page": says(200, PAGE),
    "broken JSON": says(200, b'{"Key": "imag', "application/json"),
    "other JSON": says(200, b"{}", "application/json"),
    "null": says(200, b"null", "application/json"),
    "a list of nothing": says(200, b"[null]", "application/json"),
    "not UTF-8": says(200, b"\xff\xfe\x00", "application/json"),
    "cut before": cuts_before,
    "cut after": cuts_after,
    "cut amid": cuts_amid,
    "429": says(429, b'{"message": "slow down"}', "application/json"),
    "Storage's 500": refuses(500, "Internal"),
    "544": says(544, b'{"statusCode": "544", "error": "DatabaseTimeout", "message": ""}', "application/json"),
    "locked": refuses(423, "ResourceLocked"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(supabase: SupabaseServer, fault: Fault) -> None:
    storage = supabase.storage()
    for name, verb in VERBS.items():
        supabase.faults = []
        storage.put(KEY, BODY, "image/png")
        supabase.faults = [fault, fault, None]

        result = verb(storage)

        assert result == BODY or not isinstance(result, bytes), name
        stored = supabase.objects.pop(("images", NAME), None)
        assert (stored is None) if name == "delete" else (stored and stored.data == BODY), name
        assert supabase.objects == {}, name  # of a check


LASTING: dict[str, Fault] = {
    "gateway 401": says(401, b'{"message": "Invalid API key"}', "application/json"),
    "gateway 404": says(404, PAGE),
    "unknown route": says(
        404, b'{"statusCode": 404, "error": "Not Found", "message": "Route"}', "application/json"
    ),
    "403": refuses(403, "Unauthorized"),
    "413": refuses(413, "Payload too large"),
    "415": refuses(415, "invalid_mime_type"),
    "redirect": says(302, b""),
}


@pytest.mark.parametrize("fault", [*PASSING.values(), *LASTING.values()], ids=[*PASSING, *LASTING])
def test_what_does_not_pass_is_an_outage(
    supabase: SupabaseServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    storage = supabase.storage()
    for name, verb in VERBS.items():
        supabase.faults = []
        storage.put(KEY, BODY, "image/png")
        supabase.faults, supabase.seen = [fault], []
        caplog.clear()

        with caplog.at_level(logging.ERROR), pytest.raises(StorageUnavailable) as raised:
            verb(storage)

        assert raised.value.__cause__ is not None, name
        assert raised.value.detail == StorageUnavailable().detail
        assert "the Supabase bucket images doesn't work" in caplog.text
        tries = len(supabase.seen)
        assert tries == 1 if fault in LASTING.values() else 1 < tries <= supabase_client.ATTEMPTS, name


def test_somebody_else_stores_the_same_at_this_moment(supabase: SupabaseServer) -> None:
    supabase.faults = [refuses(409, "Duplicate"), None]

    supabase.storage().put(KEY, BODY, "image/png")

    assert supabase.objects["images", NAME].data == BODY


def test_a_key_that_storage_does_not_take(supabase: SupabaseServer) -> None:
    supabase.faults = [refuses(400, "InvalidKey")]

    with pytest.raises(InvalidKey) as raised:
        supabase.storage().put(KEY, BODY, "image/png")
    assert raised.value.__cause__ is not None


@pytest.mark.timeout(60)
def test_a_server_that_drips_is_left_in_time(supabase: SupabaseServer) -> None:
    stop = threading.Event()
    supabase.faults = [drips(stop)]
    storage = supabase.storage(timeout_s=0.3)

    for name, verb in VERBS.items():
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            verb(storage)
        assert time.monotonic() - started < 5, name

    give_up = time.monotonic() + 60  # and nobody goes on to listen
    while any(thread.name == "storage call" for thread in threading.enumerate()):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    stop.set()


# -- what isn't there, and what only seems so ----------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"bucket": "nowhere"}, "FANFARE_STORAGE_URL"),
        ({"key": ANON_KEY}, "SERVICE_ROLE_KEY"),
        ({"key": FOREIGN_KEY}, "SERVICE_ROLE_KEY"),
        ({"key": "nobody's"}, "SERVICE_ROLE_KEY"),
        ({"url": "{url}/other"}, "FANFARE_SUPABASE_URL"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_an_outage_and_nothing_looks_deleted(
    supabase: SupabaseServer, caplog: pytest.LogCaptureFixture, changed: dict[str, str], hint: str
) -> None:
    supabase.storage().put(KEY, BODY, "image/png")
    wrong = supabase.storage(
        **{name: value.replace("{url}", supabase.url) for name, value in changed.items()}
    )

    for name, verb in VERBS.items():
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(StorageUnavailable):
            verb(wrong)
        assert hint in caplog.text, name

    assert supabase.objects["images", NAME].data == BODY


@pytest.mark.parametrize("url", ["http://", "https://[", "ftp://example.com", "nothing"])
def test_an_address_that_is_none(supabase: SupabaseServer, url: str) -> None:
    with pytest.raises((StorageUnavailable, ValueError)):
        supabase.storage(url=url).check()


def test_nobody_listens(supabase: SupabaseServer) -> None:
    storage = supabase.storage(url=f"http://127.0.0.1:{free_port()}")

    with pytest.raises(StorageUnavailable):
        storage.get(KEY, max_bytes=10)


def test_the_library_is_never_asked_to_delete_nothing(supabase: SupabaseServer) -> None:
    supabase.storage().delete([])

    assert supabase.seen == []


def test_more_than_one_request_can_delete(supabase: SupabaseServer) -> None:
    storage = supabase.storage()
    storage.put("many/0001.png", b"x", "image/png")
    storage.put("many/1100.png", b"x", "image/png")
    supabase.seen = []

    storage.delete(f"many/{number:04d}.png" for number in range(1200))

    assert supabase.objects == {}
    assert [line for line in supabase.seen if line.startswith("DELETE")] == [
        "DELETE /storage/v1/object/images"
    ] * 3


@pytest.mark.parametrize("largest", [100, 1000])
def test_a_walk_reads_all_pages_of_all_folders(
    supabase: SupabaseServer, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(supabase_server, "LARGEST_LIST", largest)
    storage = supabase.storage()
    keys = [f"pages/{number:03d}.txt" for number in range(250)]
    keys += [f"pages/{folder}/deep/{number:03d}.txt" for folder in "ab" for number in range(101)]
    for key in keys:
        storage.put(key, b"x", "text/plain")
    keys.append("pages/a")  # as one of the folders
    supabase.objects["images", "fanfare/pages/a"] = supabase.objects["images", f"fanfare/{keys[0]}"]
    storage.put("page.txt", b"x", "text/plain")
    supabase.objects["images", "fanfare/pages/.emptyFolderPlaceholder"] = supabase.objects[
        "images", "fanfare/page.txt"
    ]
    supabase.objects["images", "pages/not/ours.txt"] = supabase.objects["images", "fanfare/page.txt"]

    assert sorted(one.key for one in storage.walk("pages/")) == sorted(keys)
    assert len(list(storage.walk(""))) == len(keys) + 1
    assert len(list(supabase.storage(prefix="").walk(""))) == len(keys) + 2


# -- bytes that are not those that were stored ---------------------------------------------------------


def by_us(storage: SupabaseStorage) -> None:
    storage.put(KEY, BODY, "image/png")


def by_a_node(storage: SupabaseStorage) -> None:
    upload = storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)
    assert httpx.put(upload.url, content=BODY, headers=upload.headers).is_success


stored_by = pytest.mark.parametrize("store", [by_us, by_a_node])


@stored_by
@pytest.mark.parametrize("fault", [garbles, instead_of_objects(PAGE), instead_of_objects(b"")])
def test_a_download_that_is_another_one_is_made_again(
    supabase: SupabaseServer, store: Callable[[SupabaseStorage], None], fault: Fault
) -> None:
    storage = supabase.storage()
    store(storage)
    supabase.faults = [fault, fault, None]

    assert storage.get(KEY, max_bytes=10**6) == BODY

    supabase.faults = [fault]
    with pytest.raises(StorageUnavailable):
        storage.get(KEY, max_bytes=10**6)


def test_etags_that_only_look_like_checksums(supabase: SupabaseServer) -> None:
    """Servers that encrypt have such."""
    supabase.etag_of = lambda data: hashlib.md5(b"salt" + data).hexdigest()
    storage = supabase.storage()
    by_a_node(storage)

    assert storage.get(KEY, max_bytes=10**6) == BODY
    assert len(supabase.objects) == 1  # how that was found out left nothing
    supabase.seen = []
    assert storage.get(KEY, max_bytes=10**6) == BODY
    assert len(supabase.seen) == 2  # and is known from then on


def test_what_is_too_large_is_not_even_asked_for(supabase: SupabaseServer) -> None:
    storage = supabase.storage()
    storage.put(KEY, BODY, "image/png")
    supabase.seen = []

    with pytest.raises(ObjectTooLarge):
        storage.get(KEY, max_bytes=len(BODY) - 1)

    assert supabase.seen == [f"GET /storage/v1/object/info/images/{NAME}"]


def test_an_answer_without_an_end_is_not_kept_in_memory(
    supabase: SupabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "ANSWER_BYTES", 100_000)
    storage = supabase.storage()
    storage.put(KEY, BODY, "image/png")
    supabase.faults = [instead_of_objects(b"x" * 200_000)]

    with pytest.raises(StorageUnavailable) as raised:
        storage.get(KEY, max_bytes=len(BODY))

    assert isinstance(raised.value.__cause__, supabase_client.AnswerTooLarge)


# -- the check ----------------------------------------------------------------------------------------


def test_the_check_passes_where_only_images_may_be_and_leaves_nothing(supabase: SupabaseServer) -> None:
    supabase.buckets["images"].allowed_mime_types = ["image/png", "image/webp"]

    supabase.storage().check()

    assert supabase.objects == {}
    assert any(line.startswith("POST ") for line in supabase.seen)


def test_the_check_fails_where_what_is_read_is_not_what_was_written(supabase: SupabaseServer) -> None:
    supabase.faults = [garbles]

    with pytest.raises(StorageUnavailable):
        supabase.storage().check()

    assert supabase.objects == {}

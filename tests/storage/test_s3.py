"""What only S3 can get wrong: signatures, buckets, endpoints, broken servers."""

import base64
import logging
import threading
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from backend.errors import FanfareError, ObjectNotFound, StorageUnavailable
from backend.storage.s3 import CACHE_CONTROL, S3Storage
from tests.gpu_worker import http_server
from tests.s3_server import S3Server
from tests.services import free_port
from tests.storage.scripted_s3 import Answer, cuts, drips, fails, says, scripted_s3

KEY = "jobs/1/000/original.png"
BODY = b"not really a picture" * 1000


def broken(url: str, **changed: object) -> S3Storage:
    arguments: dict[str, object] = {
        "bucket": "images",
        "endpoint_url": url,
        "access_key_id": "key",
        "secret_access_key": "secret",
        "timeout_s": 20,
    }
    return S3Storage(**(arguments | changed))  # type: ignore[arg-type]


def every_verb(storage: S3Storage) -> list[Callable[[], object]]:
    return [
        lambda: storage.get(KEY, max_bytes=100),
        lambda: storage.stat(KEY),
        lambda: storage.put(KEY, b"x", "image/png"),
        lambda: storage.delete([KEY]),
        storage.check,
    ]


# -- signed URLs, on a server that checks them --------------------------------------------------------


def test_a_node_uploads_with_a_plain_put_and_a_browser_downloads_with_a_plain_get(
    s3_storage: S3Storage,
) -> None:
    upload = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10**6, expires_in=60)

    answer = httpx.put(upload.url, content=BODY, headers=upload.headers)

    assert answer.status_code == 200
    found = s3_storage.stat(KEY)
    assert (found.bytes, found.content_type) == (len(BODY), "image/png")
    download = httpx.get(s3_storage.download_url(KEY, expires_in=60).url)
    assert (download.status_code, download.content) == (200, BODY)
    assert download.headers["content-type"] == "image/png"
    part = httpx.get(s3_storage.download_url(KEY, expires_in=60).url, headers={"Range": "bytes=4-9"})
    assert part.content == BODY[4:10]


def test_the_content_type_of_an_upload_is_bound(s3_storage: S3Storage) -> None:
    upload = s3_storage.upload_url("jobs/2/a.png", content_type="image/png", max_bytes=10, expires_in=60)

    answer = httpx.put(upload.url, content=b"x", headers={**upload.headers, "Content-Type": "text/html"})

    assert answer.status_code == 403
    with pytest.raises(ObjectNotFound):
        s3_storage.stat("jobs/2/a.png")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jobs/1/000/original.png", "jobs/1/001/original.png"),
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ],
)
def test_a_tampered_url_is_refused(s3_storage: S3Storage, old: str, new: str) -> None:
    upload = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)
    assert old in upload.url

    answer = httpx.put(upload.url.replace(old, new), content=b"x", headers=upload.headers)

    assert answer.status_code == 403


def test_an_upload_url_is_not_good_for_reading(s3_storage: S3Storage) -> None:
    s3_storage.put(KEY, b"x", "image/png")
    upload = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)

    assert httpx.get(upload.url, headers=upload.headers).status_code == 403


def test_an_expired_url_is_refused(s3_storage: S3Storage) -> None:
    upload = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=1)
    time.sleep(2)

    answer = httpx.put(upload.url, content=b"x", headers=upload.headers)
    assert answer.status_code in (400, 403)  # rclone's word, and Amazon's


def test_a_url_signed_with_another_secret_is_refused(s3_server: S3Server) -> None:
    foreign = s3_server.storage(secret_access_key="other")
    upload = foreign.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)

    assert httpx.put(upload.url, content=b"x", headers=upload.headers).status_code == 403


def test_clients_and_nodes_may_see_other_addresses(s3_server: S3Server) -> None:
    storage = s3_server.storage(
        public_endpoint_url="https://cdn.example.com", node_endpoint_url="http://10.0.0.7:9000"
    )

    storage.put(KEY, BODY, "image/png")
    download = urlsplit(storage.download_url(KEY, expires_in=60).url)
    upload = urlsplit(storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60).url)
    for_nodes = urlsplit(storage.node_download_url(KEY, expires_in=60).url)

    assert storage.get(KEY, max_bytes=len(BODY)) == BODY
    assert (download.scheme, download.netloc) == ("https", "cdn.example.com")
    assert (upload.scheme, upload.netloc) == (for_nodes.scheme, for_nodes.netloc) == ("http", "10.0.0.7:9000")
    assert download.path == upload.path == for_nodes.path == f"/images/fanfare/{KEY}"


def test_a_node_downloads_what_it_may(s3_storage: S3Storage) -> None:
    s3_storage.put(KEY, BODY, "image/png")
    url = s3_storage.node_download_url(KEY, expires_in=60).url

    assert httpx.get(url).content == BODY
    assert httpx.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0")).status_code == 403


def test_amazon_itself_gets_the_bucket_and_the_region_in_the_name() -> None:
    storage = S3Storage(
        bucket="my-images", region="eu-west-1", access_key_id="key", secret_access_key="secret"
    )

    url = storage.download_url("a.png", expires_in=60).url

    assert url.startswith("https://my-images.s3.eu-west-1.amazonaws.com/a.png?")


def test_a_download_url_stays_the_same_for_a_while(s3_storage: S3Storage) -> None:
    first = s3_storage.download_url("jobs/steady.png", expires_in=7200)
    time.sleep(1.1)

    assert len({s3_storage.download_url("jobs/steady.png", expires_in=7200) for _ in range(3)} | {first}) <= 2


def test_temporary_credentials_sign_anew_each_time(s3_server: S3Server) -> None:
    """A URL ends with the token that signed it, however long it says it lives."""
    storage = s3_server.storage(session_token="token")

    first = storage.download_url(KEY, expires_in=7200)
    time.sleep(1.1)

    assert storage.download_url(KEY, expires_in=7200).url != first.url


def test_no_url_outlives_what_s3_allows(s3_storage: S3Storage) -> None:
    signed = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=30 * 86400)

    assert "X-Amz-Expires=604800" in signed.url
    assert (signed.expires_at - datetime.now(signed.expires_at.tzinfo)).days <= 7


@pytest.mark.parametrize(
    ("public", "kept"),
    [(False, "private, max-age=604800, immutable"), (True, "public, max-age=31536000, immutable")],
)
def test_what_is_stored_may_be_kept(s3_server: S3Server, public: bool, kept: str) -> None:
    with http_server.ScriptedServer() as server:
        server.script([http_server.Answer(headers={"ETag": '"1"'})])
        s3_server.storage(endpoint_url=server.url).put(KEY, b"x", "image/png", public=public)
        [seen] = server.seen
    assert (seen.headers["content-type"], seen.headers["cache-control"]) == ("image/png", kept)


def test_browsers_may_keep_what_nodes_store(s3_storage: S3Storage) -> None:
    upload = s3_storage.upload_url(KEY, content_type="image/png", max_bytes=10, expires_in=60)
    assert upload.headers["Cache-Control"] == CACHE_CONTROL


def test_a_walk_takes_more_than_one_request(s3_storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.storage.s3.PAGE", 3)
    keys = [f"pages/{number}.txt" for number in range(7)]
    for key in keys:
        s3_storage.put(key, b"x", "text/plain")

    assert sorted(one.key for one in s3_storage.walk("pages/")) == keys


def test_objects_lie_under_the_prefix(s3_server: S3Server, s3_storage: S3Storage) -> None:
    s3_storage.put("jobs/here/a.png", b"x", "image/png")
    s3_server.storage(prefix="").put("jobs/there/a.png", b"x", "image/png")

    wait_for(s3_server.folder / "images/fanfare/jobs/here/a.png")
    wait_for(s3_server.folder / "images/jobs/there/a.png")


def wait_for(path: Path) -> None:
    give_up = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < give_up, path
        time.sleep(0.05)


def test_more_than_one_request_can_delete(s3_storage: S3Storage) -> None:
    s3_storage.put("many/0001.png", b"x", "image/png")
    s3_storage.put("many/1500.png", b"x", "image/png")

    s3_storage.delete(f"many/{number:04d}.png" for number in range(1600))

    for key in ("many/0001.png", "many/1500.png"):
        with pytest.raises(ObjectNotFound):
            s3_storage.stat(key)


# -- wrong settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"bucket": "nowhere"}, "FANFARE_STORAGE_URL"),
        ({"secret_access_key": "wrong"}, "SECRET_ACCESS_KEY|wrong"),
        ({"access_key_id": "nobody"}, "ACCESS_KEY_ID|wrong"),
    ],
)
def test_wrong_settings_are_an_outage_with_a_hint_in_the_log(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture, changed: dict[str, object], hint: str
) -> None:
    for verb in every_verb(s3_server.storage(**changed)):
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(StorageUnavailable) as raised:
            verb()
        assert raised.value.__cause__ is not None
        assert raised.value.detail == StorageUnavailable().detail
        assert any(part in caplog.text for part in hint.split("|")), caplog.text


def test_no_credentials_at_all(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    storage = s3_server.storage(access_key_id="", secret_access_key="")

    verbs: list[Callable[[], object]] = [
        *every_verb(storage),
        lambda: storage.download_url(KEY, expires_in=60),
    ]
    for verb in verbs:
        with pytest.raises(StorageUnavailable):
            verb()


def test_boto3_finds_credentials_of_its_own(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")

    s3_server.storage(access_key_id="", secret_access_key="").check()


@pytest.mark.parametrize("url", ["not a url", "http://"])
def test_an_endpoint_that_is_none(url: str) -> None:
    with pytest.raises(StorageUnavailable):
        broken(url).check()


def test_nobody_listens() -> None:
    storage = broken(f"http://127.0.0.1:{free_port()}")

    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        storage.check()
    assert time.monotonic() - started < 11


# -- broken servers -----------------------------------------------------------------------------------


def test_a_cut_body_is_read_again() -> None:
    with scripted_s3(cuts(BODY, 5000), cuts(BODY, 0), says(200, BODY)) as (url, seen):
        assert broken(url).get(KEY, max_bytes=len(BODY)) == BODY

    assert len(seen) == 3


def test_a_body_that_is_always_cut_is_given_up() -> None:
    with scripted_s3(cuts(BODY, 5000)) as (url, seen), pytest.raises(StorageUnavailable):
        broken(url).get(KEY, max_bytes=len(BODY))

    assert len(seen) == 3


def test_a_garbled_body_is_read_again() -> None:
    checksum = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
    garbled = says(200, BODY[:-1] + b"!", x_amz_checksum_crc32=checksum)
    whole = says(200, BODY, x_amz_checksum_crc32=checksum)

    with scripted_s3(garbled, whole) as (url, _):
        assert broken(url).get(KEY, max_bytes=len(BODY)) == BODY
    with scripted_s3(garbled) as (url, _), pytest.raises(StorageUnavailable):
        broken(url).get(KEY, max_bytes=len(BODY))


def test_slow_down_is_obeyed() -> None:
    with scripted_s3(fails(503, "SlowDown"), says(200, BODY)) as (url, seen):
        assert broken(url).get(KEY, max_bytes=len(BODY)) == BODY

    assert len(seen) == 2


@pytest.mark.timeout(30)
def test_a_server_that_drips_is_left_in_time() -> None:
    stop = threading.Event()
    with scripted_s3(drips(stop)) as (url, _):
        started = time.monotonic()
        try:
            with pytest.raises(StorageUnavailable) as raised:
                broken(url, timeout_s=0.7).get(KEY, max_bytes=10**6)
        finally:
            stop.set()

    assert time.monotonic() - started < 20
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_a_web_page_is_no_answer() -> None:
    page = says(200, b"<html>Welcome to the proxy</html>", Content_Type="text/html")
    with scripted_s3(page) as (url, _):
        storage = broken(url)
        with pytest.raises(StorageUnavailable):
            storage.put(KEY, b"x", "image/png")
        with pytest.raises(StorageUnavailable):
            storage.delete([KEY])


def test_a_server_that_deletes_one_by_one_only() -> None:
    with scripted_s3(fails(501, "NotImplemented"), says(204)) as (url, seen):
        storage = broken(url)
        storage.delete(["a.png", "b.png"])
        storage.delete(["c.png"])

    assert [line.split("?")[0] for line in seen] == [
        "POST /images", "DELETE /images/a.png", "DELETE /images/b.png", "DELETE /images/c.png",
    ]  # fmt: skip


def test_an_object_that_can_not_be_deleted_is_no_success() -> None:
    answer = (
        b"<DeleteResult><Error><Key>a.png</Key><Code>NoSuchKey</Code></Error>"
        b"<Error><Key>b.png</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    )
    with scripted_s3(says(200, answer)) as (url, _), pytest.raises(StorageUnavailable):
        broken(url).delete(["a.png", "b.png"])

    gone = answer.replace(b"AccessDenied", b"NoSuchKey")
    with scripted_s3(says(200, gone)) as (url, _):
        broken(url).delete(["a.png", "b.png"])


def listing(*keys: str, more: str = "") -> bytes:
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-31T12:00:00Z</LastModified></Contents>"
        for key in keys
    )
    rest = f"<NextContinuationToken>{more}</NextContinuationToken>" if more != "?" else ""
    truncated = f"<IsTruncated>true</IsTruncated>{rest}" if more else "<IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult><Name>images</Name>{truncated}{contents}</ListBucketResult>".encode()


def test_a_walk_goes_on_where_the_last_answer_ended() -> None:
    pages = says(200, listing("a.png", "no key of ours", more="t1")), says(200, listing("b.png"))
    with scripted_s3(*pages) as (url, seen):
        found = [one.key for one in broken(url).walk("")]

    assert found == ["a.png", "b.png"]
    assert ["continuation-token=t1" in line for line in seen] == [False, True]


@pytest.mark.parametrize(
    "answer",
    [
        says(200, listing("a.png", more="?")),  # doesn't say how to go on
        says(200, listing("a.png", more="t1")),  # says the same for ever
        says(200, b"<html>Welcome to the proxy</html>", Content_Type="text/html"),
        says(404),
        fails(404, "NoSuchBucket"),
        fails(403, "AccessDenied"),
    ],
)
def test_a_listing_that_can_not_be_trusted_is_an_outage(answer: Answer) -> None:
    with scripted_s3(answer) as (url, _), pytest.raises(StorageUnavailable):
        list(broken(url).walk(""))


def test_a_missing_bucket_does_not_look_like_a_missing_object() -> None:
    with scripted_s3(says(404)) as (url, _), pytest.raises(StorageUnavailable):
        broken(url).stat(KEY)
    with scripted_s3(says(404), says(200)) as (url, _), pytest.raises(ObjectNotFound):
        broken(url).stat(KEY)


def test_no_vendor_text_reaches_the_client() -> None:
    with scripted_s3(fails(400, "Weird")) as (url, _), pytest.raises(FanfareError) as raised:
        broken(url).get(KEY, max_bytes=1)

    assert "vendor" not in raised.value.detail
    assert url not in raised.value.detail

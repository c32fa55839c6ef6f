"""Uploads to a real HTTP server, on its good days and its bad ones."""

import time
from contextlib import closing
from typing import Any

import pytest

from contract.messages import FailureCode
from gpu_worker.upload import Uploader, UploadFailed
from tests.gpu_worker.http_server import Answer, ScriptedServer
from tests.gpu_worker.messages import upload_to

CONTENT = b"\x89PNG" + bytes(range(256)) * 200


def put(server: ScriptedServer, *, timeout_s: float = 10, seconds_left: float = 60, **changes: Any) -> None:
    upload = upload_to(server.url + "/files/a%20b%2Fc~d.png?signature=a%2Bb+c", **changes)
    with closing(Uploader(timeout_s, first_pause_s=0.01)) as uploader:
        uploader.put(upload, CONTENT, seconds_left=seconds_left)


def failure(server: ScriptedServer, **changes: Any) -> tuple[FailureCode, bool]:
    with pytest.raises(UploadFailed) as raised:
        put(server, **changes)
    assert "signature" not in str(raised.value)
    assert "http" not in raised.value.failure.message
    return raised.value.failure.code, raised.value.failure.retryable


def test_puts_the_bytes_with_the_signed_headers_to_the_signed_url(storage: ScriptedServer) -> None:
    put(storage, headers={"Content-Type": "image/png", "X-Amz-Acl": "private"})

    (seen,) = storage.seen
    assert (seen.method, seen.path) == ("PUT", "/files/a%20b%2Fc~d.png?signature=a%2Bb+c")
    assert seen.body == CONTENT
    assert (seen.headers["content-type"], seen.headers["x-amz-acl"]) == ("image/png", "private")
    assert seen.headers["content-length"] == str(len(CONTENT))


def test_sends_no_content_type_of_its_own(storage: ScriptedServer) -> None:
    put(storage)

    assert "content-type" not in storage.seen[0].headers


@pytest.mark.parametrize(
    "first", [Answer(500), Answer(503), Answer(429), Answer(408), Answer(reset=True)], ids=str
)
def test_tries_again_what_passes(storage: ScriptedServer, first: Answer) -> None:
    storage.script([first, first, Answer(201)])

    put(storage)

    assert len(storage.seen) == 3


@pytest.mark.parametrize(
    ("status", "code", "retryable", "tries"),
    [
        (401, FailureCode.UPLOAD_EXPIRED, True, 1),
        (403, FailureCode.UPLOAD_EXPIRED, True, 1),
        (410, FailureCode.UPLOAD_EXPIRED, True, 1),
        (400, FailureCode.UPLOAD_FAILED, False, 1),
        (404, FailureCode.UPLOAD_FAILED, False, 1),
        (413, FailureCode.UPLOAD_FAILED, False, 1),
    ],
)
def test_refusals(
    storage: ScriptedServer, status: int, code: FailureCode, retryable: bool, tries: int
) -> None:
    storage.script([Answer(status, b"<html>vendor text</html>")])

    assert failure(storage) == (code, retryable)
    assert len(storage.seen) == tries


@pytest.mark.parametrize(
    ("told", "code", "retryable"),
    [
        (b'{"statusCode": "400", "error": "InvalidJWT", "message": ""}', FailureCode.UPLOAD_EXPIRED, True),
        (b'{"statusCode": "400", "code": "ExpiredToken"}', FailureCode.UPLOAD_EXPIRED, True),
        (b'{"statusCode": "403", "error": "Unauthorized"}', FailureCode.UPLOAD_EXPIRED, True),
        (b'{"statusCode": "503", "error": "SlowDown"}', FailureCode.UPLOAD_FAILED, True),
        (b'{"statusCode": "413", "error": "Payload too large"}', FailureCode.UPLOAD_FAILED, False),
        (b'{"statusCode": "x"}', FailureCode.UPLOAD_FAILED, False),
        (b'{"statusCode": null, "error": []}', FailureCode.UPLOAD_FAILED, False),
        (b'["statusCode"]', FailureCode.UPLOAD_FAILED, False),
        (b"\xff", FailureCode.UPLOAD_FAILED, False),
    ],
)
def test_supabase_says_400_and_means_what_it_tells(
    storage: ScriptedServer, told: bytes, code: FailureCode, retryable: bool
) -> None:
    storage.script([Answer(400, told)])

    assert failure(storage, timeout_s=1) == (code, retryable)


def test_a_storage_that_stays_away_is_asked_until_the_end(storage: ScriptedServer) -> None:
    storage.script([Answer(500)])

    assert failure(storage, timeout_s=1) == (FailureCode.UPLOAD_FAILED, True)
    assert len(storage.seen) > 4


def test_any_refusal_of_an_expired_url_means_expired(storage: ScriptedServer) -> None:
    storage.script([Answer(400)])

    assert failure(storage, expires_s=-1) == (FailureCode.UPLOAD_EXPIRED, True)


def test_redirects_are_not_followed(storage: ScriptedServer) -> None:
    storage.script([Answer(307, headers={"Location": storage.url + "/elsewhere"})])

    assert failure(storage) == (FailureCode.UPLOAD_FAILED, False)
    assert len(storage.seen) == 1


def test_too_large_is_not_even_tried(storage: ScriptedServer) -> None:
    assert failure(storage, max_bytes=len(CONTENT) - 1) == (FailureCode.UPLOAD_FAILED, False)
    assert storage.seen == []


@pytest.mark.parametrize("bad", [Answer(drip_s=0.02), Answer(wait_s=3)], ids=["drips", "is silent"])
@pytest.mark.parametrize("limit", ["timeout_s", "seconds_left"])
def test_there_is_a_deadline_for_the_whole(storage: ScriptedServer, bad: Answer, limit: str) -> None:
    storage.script([bad])
    begun = time.monotonic()

    assert failure(storage, **{limit: 0.4}) == (FailureCode.UPLOAD_FAILED, True)
    assert time.monotonic() - begun < 2.8


def test_nobody_listens() -> None:
    with ScriptedServer() as server:
        pass

    assert failure(server) == (FailureCode.UPLOAD_FAILED, True)


@pytest.mark.parametrize("url", ["ftp://host/file", "http://", "no url at all", "http://host:port/"])
def test_not_a_url_to_upload_to(url: str) -> None:
    with closing(Uploader(1, first_pause_s=0.01)) as uploader, pytest.raises(UploadFailed) as raised:
        uploader.put(upload_to(url), b"x", seconds_left=1)

    assert raised.value.failure.code is FailureCode.UPLOAD_FAILED


def test_one_connection_serves_many_uploads(storage: ScriptedServer) -> None:
    # Given a server that was sent an answer's body, too
    connections = set[int]()
    storage.script([lambda seen: connections.add(seen.port) or Answer(body=b"thanks")])  # type: ignore[func-returns-value]
    with closing(Uploader(10)) as uploader:
        for number in range(5):
            uploader.put(upload_to(f"{storage.url}/{number}"), CONTENT, seconds_left=10)
    assert len(connections) == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_no_failure(storage: ScriptedServer) -> None:
    storage.script([Answer(), Answer(reset=True), Answer()])
    with closing(Uploader(10, first_pause_s=0.01)) as uploader:
        for number in range(2):
            uploader.put(upload_to(f"{storage.url}/{number}"), CONTENT, seconds_left=10)
    assert [seen.path for seen in storage.seen] == ["/0", "/1", "/1"]

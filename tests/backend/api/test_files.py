"""Signed files over HTTP: a real server, plain clients, and some that don't behave."""

import contextlib
import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from backend.api import bounded_request, documentation, files, problems
from backend.storage.local import DRAFTS, LocalStorage
from backend.storage.signing import Permit, Signer
from contract.messages import SignedUpload

KEY = "jobs/1/000/original.webp"
DATA = os.urandom(700_000)
SIGNER = Signer(b"the server's secret")


@dataclass
class Site:
    """A server, and the storage behind it."""

    url: str
    root: Path
    storage: LocalStorage
    app: FastAPI

    def upload(self, key: str = KEY, max_bytes: int = 10**6, **changed: Any) -> SignedUpload:
        """A signed upload of a WebP."""
        arguments: dict[str, Any] = {
            "content_type": "image/webp",
            "max_bytes": max_bytes,
            "expires_in": 60,
        } | changed
        return self.storage.upload_url(key, **arguments)

    def download(self, key: str = KEY) -> str:
        """A signed URL."""
        return self.storage.download_url(key, expires_in=60).url

    def files(self) -> list[str]:
        """All that lies under the root, drafts included."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    app = FastAPI()
    app.include_router(files.router)
    problems.install(app)
    documentation.install(app)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    root = tmp_path_factory.mktemp("site") / "files"
    storage = LocalStorage(root, public_url=url, node_url=url, signer=SIGNER)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Site(url, root, storage, app)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    running_site.app.state.resources = SimpleNamespace(storage=running_site.storage)
    yield running_site
    running_site.storage.delete(name for name in running_site.files() if not name.startswith(DRAFTS))
    assert running_site.files() == [], "a draft was left behind"


@pytest.fixture
def stored(site: Site) -> Site:
    site.storage.put(KEY, DATA, "image/webp")
    return site


def put(upload: SignedUpload, content: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.put(upload.url, content=content, headers={**upload.headers, **named})


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


# -- download -----------------------------------------------------------------------------------------


def test_a_download_is_whole_and_says_all_that_a_browser_wants_to_know(stored: Site) -> None:
    answer = httpx.get(stored.download())

    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == 'inline; filename="000-original.webp"'
    assert answer.headers["etag"].startswith('"')
    assert abs(parsedate_to_datetime(answer.headers["last-modified"]).timestamp() - time.time()) < 60


def test_a_browser_may_keep_it_for_as_long_as_the_url_lives(stored: Site) -> None:
    cache_control = httpx.get(stored.download()).headers["cache-control"]

    private, max_age, immutable = cache_control.split(", ")
    assert (private, immutable) == ("private", "immutable")
    assert 55 <= int(max_age.removeprefix("max-age=")) <= 92


def test_a_download_to_be_saved(stored: Site) -> None:
    answer = httpx.get(stored.download() + "&download=1")

    assert answer.headers["content-disposition"] == 'attachment; filename="000-original.webp"'


def test_head_has_the_headers_alone(stored: Site) -> None:
    answer = httpx.head(stored.download(), headers={"Range": "bytes=0-1"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))


def test_an_empty_object(site: Site) -> None:
    site.storage.put("empty.txt", b"", "text/plain")

    assert httpx.get(site.download("empty.txt")).content == b""
    ranged = httpx.get(site.download("empty.txt"), headers={"Range": "bytes=0-"})
    assert code(ranged) == (416, "range_not_satisfiable")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=699990-", 699_990, 700_000),
        ("bytes=699990-999999999", 699_990, 700_000),
        ("bytes=-5", 699_995, 700_000),
        ("bytes=-9999999", 0, 700_000),
        ("bytes=100000-600000", 100_000, 600_001),
        ("Bytes = 1 - 2", 1, 3),
    ],
)
def test_a_range(stored: Site, asked: str, start: int, stop: int) -> None:
    answer = httpx.get(stored.download(), headers={"Range": asked})

    assert answer.status_code == 206
    assert answer.content == DATA[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/700000"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=700000-", "bytes=700000-700001", "bytes=-0"])
def test_a_range_outside(stored: Site, asked: str) -> None:
    answer = httpx.get(stored.download(), headers={"Range": asked})

    assert code(answer) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */700000"


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=0-1,4-5", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", f"bytes={'9' * 99}-"],
)  # fmt: skip
def test_a_range_that_is_not_understood_is_ignored(stored: Site, asked: str) -> None:
    answer = httpx.get(stored.download(), headers={"Range": asked})

    assert (answer.status_code, answer.content) == (200, DATA)


def test_a_range_of_another_version_gets_all_of_this_one(stored: Site) -> None:
    first = httpx.get(stored.download())
    part = {"Range": "bytes=1-2"}

    same = [first.headers["etag"], first.headers["last-modified"]]
    other = ['"other"', f"W/{first.headers['etag']}", "Mon, 01 Jan 2024 00:00:00 GMT"]

    for value in same:
        assert httpx.get(stored.download(), headers={**part, "If-Range": value}).status_code == 206
    for value in other:
        assert httpx.get(stored.download(), headers={**part, "If-Range": value}).status_code == 200


def test_what_the_client_has_is_not_sent_again(stored: Site) -> None:
    first = httpx.get(stored.download())
    etag, date = first.headers["etag"], first.headers["last-modified"]

    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"other", W/{etag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": date},
    ):
        answer = httpx.get(stored.download(), headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
        assert "max-age" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": "Fri, 01 Jan 2038 00:00:00 GMT"},
        {"If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ],
)
def test_what_it_does_not_have_is_sent(stored: Site, headers: dict[str, str]) -> None:
    assert httpx.get(stored.download(), headers=headers).status_code == 200


def test_the_etag_changes_with_the_bytes(stored: Site) -> None:
    first = httpx.get(stored.download()).headers["etag"]
    stored.storage.put(KEY, DATA[::-1], "image/webp")

    assert httpx.get(stored.download()).headers["etag"] != first


def test_a_client_that_leaves_amid_a_download_costs_nothing(stored: Site) -> None:
    before = open_files()
    for _ in range(5):
        with httpx.stream("GET", stored.download()) as answer:
            next(answer.iter_raw(1000))

    assert httpx.get(stored.download()).content == DATA
    eventually(lambda: open_files() <= before)


# -- signatures ---------------------------------------------------------------------------------------


def test_without_a_signature(stored: Site) -> None:
    plain = f"{stored.url}/v1/files/{KEY}"

    for answer in (
        httpx.get(plain),
        httpx.put(plain, content=b"x"),
        httpx.get(f"{plain}?expires=99999999999"),
    ):
        assert code(answer) == (403, "signature_invalid")
    assert code(httpx.get(f"{plain}?expires=soon&signature=x")) == (422, "invalid_request")
    assert httpx.head(plain).status_code == 403


def test_a_signature_is_for_one_key_and_one_verb(stored: Site) -> None:
    upload = stored.upload()
    stored.storage.put("jobs/2/a.webp", b"x", "image/webp")

    tampered = [
        httpx.get(stored.download().replace(KEY, "jobs/2/a.webp")),
        httpx.get(upload.url),
        httpx.put(stored.download(), content=b"x", headers=upload.headers),
        httpx.put(upload.url.replace(KEY, "jobs/2/a.webp"), content=b"x", headers=upload.headers),
        httpx.put(upload.url.replace("max_bytes=1000000", "max_bytes=9000000"), content=b"x"),
        httpx.put(upload.url.replace("image/webp", "text/html"), content=b"x"),
        httpx.get(stored.download().replace("signature=", "signature=A")),
    ]

    assert {code(answer) for answer in tampered} == {(403, "signature_invalid")}
    assert stored.storage.get(KEY, max_bytes=10**6) == DATA


def test_somebody_elses_signature(stored: Site) -> None:
    foreign = LocalStorage(stored.root, public_url=stored.url, node_url=stored.url, signer=Signer(b"other"))

    answer = httpx.get(foreign.download_url(KEY, expires_in=60).url)

    assert code(answer) == (403, "signature_invalid")


def test_an_expired_url_says_so(stored: Site) -> None:
    past = int(time.time()) - 1
    get = SIGNER.sign(Permit("GET", KEY, past))
    download = httpx.get(f"{stored.url}/v1/files/{KEY}?expires={past}&signature={get}")
    upload = put(stored.upload(expires_in=-1), b"x")

    assert code(download) == code(upload) == (403, "signature_expired")


def test_what_is_not_there(site: Site) -> None:
    assert code(httpx.get(site.download())) == (404, "object_not_found")


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd",
        "%2fetc%2fpasswd",
        "a%00b", "a%0ab", "a%5cb", ".drafts/x", "%2edrafts/x", "a//b", "", "a/", "%ff%fe", "a" * 600, "ä",
    ],
)  # fmt: skip
def test_path_tricks(site: Site, path: str) -> None:
    """As sent, byte by byte: httpx would tidy some of them up."""
    for verb in ("GET", "PUT"):
        status = raw_status(site, verb, f"/v1/files/{path}?expires=99999999999&signature=x")
        assert status in (403, 404), (verb, path)


def test_a_signed_path_trick_is_still_none(site: Site) -> None:
    """Even somebody who could sign gets nowhere."""
    secret = site.root.parent / "secret.txt"
    secret.write_text("secret")
    expires = int(time.time()) + 60
    for key in ("../secret.txt", f"{DRAFTS}/x", str(secret)):
        signature = SIGNER.sign(Permit("GET", key, expires))
        target = f"/v1/files/{key}?expires={expires}&signature={signature}"
        assert raw_status(site, "GET", target) == 404


# -- upload -------------------------------------------------------------------------------------------


def test_an_upload_is_stored_and_can_be_repeated(site: Site) -> None:
    upload = site.upload()

    first, again = put(upload, DATA), put(upload, DATA[:10])

    assert (first.status_code, again.status_code) == (201, 204)
    assert first.content == again.content == b""
    download = httpx.get(site.download())
    assert download.content == DATA[:10]
    assert download.headers["etag"] == again.headers["etag"] != first.headers["etag"]


def test_an_upload_in_chunks(site: Site) -> None:
    answer = put(site.upload(), (DATA[start : start + 999] for start in range(0, len(DATA), 999)))

    assert answer.status_code == 201
    assert site.storage.get(KEY, max_bytes=10**6) == DATA


def test_an_upload_of_just_the_largest_size(site: Site) -> None:
    assert put(site.upload(max_bytes=len(DATA)), DATA).status_code == 201


def test_a_body_that_says_it_is_too_large(site: Site) -> None:
    answer = put(site.upload(max_bytes=len(DATA) - 1), DATA)

    assert code(answer) == (413, "payload_too_large")
    assert site.files() == []


def test_a_body_that_turns_out_to_be_too_large(site: Site) -> None:
    site.storage.put(KEY, b"old", "image/webp")

    answer = put(site.upload(max_bytes=50_000), iter([DATA[:40_000], DATA[:40_000]]))

    assert code(answer) == (413, "payload_too_large")
    assert site.files() == [KEY]
    assert site.storage.get(KEY, max_bytes=3) == b"old"


@pytest.mark.parametrize("content_type", ["text/html", "image/png", ""])
def test_another_content_type(site: Site, content_type: str) -> None:
    assert code(put(site.upload(), b"x", Content_Type=content_type)) == (415, "unsupported_media_type")
    assert site.files() == []


def test_the_same_content_type_in_other_words(site: Site) -> None:
    assert put(site.upload(), b"x", Content_Type="Image/WebP; q=1").status_code == 201


def test_a_packed_body_is_refused(site: Site) -> None:
    assert code(put(site.upload(), b"x", Content_Encoding="gzip")) == (415, "unsupported_media_type")


def test_a_node_that_dies_amid_its_upload_leaves_nothing(site: Site) -> None:
    for headers, body in (
        (f"Content-Length: {len(DATA)}", DATA[:300_000]),
        ("Transfer-Encoding: chunked", b"493e0\r\n" + DATA[:300_000] + b"\r\n"),
    ):
        with connect(site) as connection:
            connection.sendall(request_head(site.upload(), headers) + body)
            eventually(lambda: any(name.startswith(DRAFTS) for name in site.files()))
        eventually(lambda: site.files() == [])


def test_a_node_that_falls_silent_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_request, "IDLE_S", 0.2)

    with connect(site) as connection:
        connection.sendall(request_head(site.upload(), "Content-Length: 100") + b"x" * 50)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_timed_out" in answer
    eventually(lambda: site.files() == [])


def test_a_node_that_sends_drops_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_request, "IDLE_S", 0.5)

    with connect(site) as connection:
        connection.sendall(request_head(site.upload(), "Content-Length: 100"))
        connection.settimeout(0.1)
        answer = b""
        for _ in range(50):  # never silent for long
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
                break
    assert answer.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: site.files() == [])


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"backend.storage.draft.os.{call}", full)
        answer = put(site.upload(), DATA)

    assert code(answer) == (503, "storage_unavailable")
    assert answer.headers["retry-after"]
    assert site.files() == []


def test_many_at_once(site: Site) -> None:
    uploads = [site.upload(f"jobs/1/{index:03d}/original.webp") for index in range(12)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda upload=upload: answers.append(put(upload, DATA).status_code))
        for upload in uploads
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [201] * 12
    assert len(site.files()) == 12


# -- elsewhere ----------------------------------------------------------------------------------------


def test_no_files_are_served_where_the_storage_is_another(stored: Site) -> None:
    url, upload = stored.download(), stored.upload()
    stored.app.state.resources = SimpleNamespace(storage=object())

    assert code(httpx.get(url)) == (404, "not_found")
    assert code(put(upload, b"x")) == (404, "not_found")


def test_the_openapi_declares_every_answer(site: Site) -> None:
    operations = httpx.get(f"{site.url}/openapi.json").json()["paths"]["/v1/files/{key}"]

    assert operations["get"]["operationId"] == "download_file"
    assert operations["put"]["operationId"] == "upload_file"
    assert {"200", "206", "304", "403", "404", "416", "422", "503"} == set(operations["get"]["responses"])
    assert {"201", "204", "403", "404", "408", "413", "415", "422", "503"} == set(
        operations["put"]["responses"]
    )
    assert "image/webp" in operations["get"]["responses"]["200"]["content"]
    assert "application/json" not in operations["get"]["responses"]["200"]["content"]
    assert "image/webp" in operations["put"]["requestBody"]["content"]


# -- means --------------------------------------------------------------------------------------------


def raw_status(site: Site, verb: str, target: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
    try:
        connection.putrequest(verb, target.encode().decode("latin-1"), skip_accept_encoding=True)
        connection.endheaders()
        return connection.getresponse().status
    except (http.client.InvalidURL, UnicodeEncodeError):
        return 404  # can't even be said
    finally:
        connection.close()


def connect(site: Site) -> socket.socket:
    address = urlsplit(site.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=60)


def request_head(upload: SignedUpload, *headers: str) -> bytes:
    address = urlsplit(upload.url)
    lines = [
        f"PUT {address.path}?{address.query} HTTP/1.1",
        f"Host: {address.netloc}",
        *(f"{name}: {value}" for name, value in upload.headers.items()),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def open_files() -> int:
    """Descriptors of this process (the server runs in it) that point to stored objects."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += KEY in str(fd.readlink())
        except FileNotFoundError:
            continue
    return found


def eventually(holds: Any) -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)

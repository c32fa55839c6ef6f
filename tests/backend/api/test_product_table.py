"""Tables of products by the API: as a body, as a form, too large, too slow, and no tables at all."""

import asyncio
import csv
import io
import socket
from collections.abc import Iterator

import httpx
import pytest

from backend.api import bounded_request
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.api.test_products import A, B, create

IMPORT, EXPORT = "/v1/products/import", "/v1/products/export"
TABLE = (
    f'\ufeffserial number;product name;input image URLs\r\n1;Lamp;"{A}\n{B}"\r\n2;;\r\n3;Tür;{A}\r\n'.encode()
)
CSV = {"content-type": "text/csv"}


def report_of(answer: httpx.Response) -> tuple[int, int, int, int]:
    assert answer.status_code == 200, answer.text
    report = answer.json()
    return report["created"], report["updated"], report["unchanged"], report["failed_count"]


def test_a_table_comes_as_a_body_or_as_a_form(api: httpx.Client) -> None:
    # When it comes as it is
    answer = api.post(IMPORT, content=TABLE, headers=CSV)
    # Then its good rows go in, and the bad one is told
    assert report_of(answer) == (2, 0, 0, 1)
    assert answer.json()["failed"] == [
        {"line": 4, "serial_number": "2", "detail": "product name: must not be blank"}
    ]
    # When it comes again, from a form of a browser, then nothing changes
    for kind in ("text/csv", "application/vnd.ms-excel", "application/octet-stream"):
        answer = api.post(IMPORT, files={"file": ("lamps.csv", TABLE, kind)}, data={"note": "x"})
        assert report_of(answer) == (0, 0, 2, 1)
    found = api.get("/v1/products").json()["results"]
    assert [(one["serial_number"], one["name"]) for one in found] == [("3", "Tür"), ("1", "Lamp")]


def test_what_is_exported_can_be_imported(api: httpx.Client) -> None:
    create(api, serial_number="=1", name='"quoted"\nlamp, large')
    create(api, serial_number="2", image_urls=[])
    exported = api.get(EXPORT)
    assert exported.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert exported.headers["content-disposition"] == 'attachment; filename="products.csv"'
    rows = list(csv.reader(io.StringIO(exported.content.decode("utf-8-sig"), newline="")))
    assert rows[1:] == [["'=1", '"quoted"\nlamp, large', f"{A}\n{B}", ""], ["2", "Lamp", "", ""]]
    before = api.get("/v1/products").json()
    assert report_of(api.post(IMPORT, content=exported.content, headers=CSV)) == (0, 0, 2, 0)
    assert api.get("/v1/products").json() == before


def test_an_export_of_nothing_is_a_table(api: httpx.Client) -> None:
    text = api.get(EXPORT).content.decode("utf-8-sig")
    assert text == "serial number,product name,input image URLs,output image URLs\r\n"
    assert report_of(api.post(IMPORT, content=text.encode(), headers=CSV)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (TABLE, {"content-type": "application/json"}, 415, "unsupported_media_type"),
        (TABLE, {"content-type": "text/csv; charset=latin-1"}, 415, "unsupported_media_type"),
        (
            b"--x--",
            {"content-type": "multipart/form-data; boundary=x; charset=undefined"},
            415,
            "unsupported_media_type",
        ),
        (TABLE, {}, 415, "unsupported_media_type"),
        (b"", CSV, 422, "invalid_request"),
        (b"lamps\n1\n", CSV, 422, "invalid_request"),
        (TABLE, {"content-type": "multipart/form-data"}, 400, "malformed_request"),
        (TABLE, {"content-type": "multipart/form-data; boundary=x"}, 400, "malformed_request"),
    ],
)
def test_what_is_no_table_is_refused(
    api: httpx.Client, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = api.post(IMPORT, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert api.get("/v1/products").json()["results"] == []


def test_forms_without_the_file_or_with_too_much_are_refused(api: httpx.Client) -> None:
    for form in ({"other": ("a.csv", TABLE)}, {"file": (None, TABLE.decode())}):
        answer = api.post(IMPORT, files=form)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    two = [("file", ("a.csv", TABLE)), ("file", ("b.csv", TABLE))]
    assert api.post(IMPORT, files=two).status_code == 400
    assert api.get("/v1/products").json()["results"] == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_table_that_is_too_large_is_refused(start_server: StartServer, *, chunked: bool) -> None:
    server = start_server(max_import_bytes=100_000)
    announce(server)
    rows = b"".join(b"%d,Lamp,\n" % number for number in range(20_000))
    table = b"serial number,product name,input image URLs\n" + rows

    def pieces(content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    with httpx.Client(base_url=server.url, timeout=20) as api:
        body = pieces(table) if chunked else table
        answer = api.post(IMPORT, content=body, headers=CSV)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        answer = api.post(IMPORT, files={"file": ("a.csv", table)})
        assert answer.status_code == 413
        assert api.get("/v1/products").json()["results"] == []
        assert report_of(api.post(IMPORT, content=table[:90_000] + b"\n", headers=CSV))[0] > 1000


def test_who_sends_nothing_more_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_request, "IDLE_S", 0.2)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/products/import HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 1000\r\n\r\nserial number"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_who_goes_away_amidst_leaves_nothing(server: Server, api: httpx.Client) -> None:
    async def leave() -> None:
        async def pieces() -> "asyncio.AsyncIterator[bytes]":  # type: ignore[name-defined]
            yield TABLE
            raise ConnectionResetError

        async with httpx.AsyncClient(base_url=server.url) as client:
            await client.post(IMPORT, content=pieces(), headers=CSV)

    with pytest.raises(ConnectionResetError):
        asyncio.run(leave())
    assert api.get("/v1/products").json()["results"] == []

"""Tables of products, in and out: what goes in comes out, and once more changes nothing."""

import csv
import io
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backend.db import Database
from backend.errors import StorageUnavailable
from backend.products import importing, store, writing
from backend.products.fields import MOST_URLS, ProductFields
from backend.products.importing import ImportReport
from backend.products.models import Product, ProductImage
from backend.products.reading import NotATable
from backend.products.store import Output
from backend.storage.local import LocalStorage
from backend.storage.signing import Signer

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HEADING = "serial number,product name,input image URLs\r\n"
A, B = "https://a.example/w_1,h_2/a.jpg", "https://b.example/b.jpg"


class Away(LocalStorage):
    """A storage that deletes nothing."""

    def delete(self, keys: Any) -> None:
        raise StorageUnavailable


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"s"))


def import_text(database: Database, storage: LocalStorage, text: str, owner: str = "ann") -> ImportReport:
    return importing.import_table(database, storage, owner, io.BytesIO(text.encode()), NOW)


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.updated, report.unchanged, report.failed_count


def export(database: Database, owner: str = "ann") -> str:
    return "".join(writing.write(database, owner, lambda key: f"https://out.example/{key}"))


def products(database: Database, owner: str = "ann") -> dict[str, ProductFields]:
    with database.read_scope() as session:
        rows = store.portion(session, owner, None, 10_000)
        return {row.serial_number: store.fields_of(row) for row in rows}


def test_rows_make_products_change_them_or_leave_them(database: Database, storage: LocalStorage) -> None:
    text = f'{HEADING}1,Lamp,"{A} {B}"\r\n2,Chair,{B}\r\n3,Table,\r\n'
    assert counts(import_text(database, storage, text)) == (3, 0, 0, 0)
    # When it comes again, then nothing changes
    assert counts(import_text(database, storage, text)) == (0, 0, 3, 0)
    # When it says something else of some, and some are bad, then the good ones go in
    text = f'{HEADING}1,Lamp,"{B} {A}"\r\n,x,\r\n2,Armchair,{B}\r\n3,Table,\r\n'
    text += "4,New,x.jpg\r\n5,New,\r\n5,Newer,\r\n"
    report = import_text(database, storage, text)
    assert counts(report) == (1, 2, 1, 3)
    assert [(one.line, one.serial_number, one.detail[:14]) for one in report.failed] == [
        (3, "", "serial number:"), (6, "4", "input image UR"), (8, "5", "line 7 has thi"),
    ]  # fmt: skip
    assert products(database) == {
        "1": ProductFields("1", "Lamp", (B, A)), "2": ProductFields("2", "Armchair", (B,)),
        "3": ProductFields("3", "Table", ()), "5": ProductFields("5", "New", ()),
    }  # fmt: skip
    # And nobody else has any of it
    assert products(database, "bob") == {}
    assert counts(import_text(database, storage, text, "bob")) == (4, 0, 0, 3)


def test_what_is_exported_can_be_imported_and_changes_nothing(
    database: Database, storage: LocalStorage
) -> None:
    # Given names that look like formulas, quotes, newlines, all scripts, and URLs with commas
    names = [
        "=1+1",
        "+49",
        "-1",
        "@x",
        "'=1",
        "'",
        'say "a,b;c"',
        "two\nlines",
        "灯 🦊",
        "ＡＢ",
        "＝1",
        "x" * 500,
    ]
    given = [
        ProductFields(serial_number, name, (A, B) if number % 2 else ())
        for number, (serial_number, name) in enumerate(zip(names, names[::-1], strict=True))
        if "\n" not in serial_number and len(serial_number) < 100
    ]
    urls = tuple(f"https://a.example/{'x' * 2000}{number}" for number in range(MOST_URLS))
    given.append(ProductFields("the largest", "Lamp", urls))
    with database.session_scope() as session:
        for fields in given:
            store.add(session, "ann", fields, NOW)
    # When they are exported, then a reader of CSV finds what they are, and no formula
    text = export(database)
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert rows[0] == ["serial number", "product name", "input image URLs", "output image URLs"]
    assert [row[2].split() for row in rows[1:]] == [list(one.image_urls) for one in given]
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@＝\t\r\n")]
    # When that is imported, then nothing changes; and elsewhere it makes the same
    before = products(database)
    assert counts(import_text(database, storage, text)) == (0, 0, len(given), 0)
    assert products(database) == before
    assert counts(import_text(database, storage, text, "bob")) == (len(given), 0, 0, 0)
    assert products(database, "bob") == before
    assert export(database, "bob") == text


def test_each_output_stands_in_the_line_of_its_input(database: Database, storage: LocalStorage) -> None:
    import_text(database, storage, f'{HEADING}1,Lamp,"{A} {B}"\r\n')
    made = Output("products/x/b.webp", "image/webp", 9, "5a", 4, 3, 0.5)
    with database.session_scope() as session:
        product = store.lock_by_serial_number(session, "ann", "1")
        assert product is not None
        store.record_output(session, product.id, B, made, job_id=None, now=NOW)
    *_, row = csv.reader(io.StringIO(export(database), newline=""))
    assert row == ["1", "Lamp", f"{A}\n{B}", "\nhttps://out.example/products/x/b.webp"]
    # And an import takes no notice of it
    assert counts(import_text(database, storage, export(database))) == (0, 0, 1, 0)


@pytest.mark.parametrize("is_away", [False, True])
def test_outputs_of_urls_that_are_no_longer_named_go(
    database: Database, storage: LocalStorage, tmp_path: Path, *, is_away: bool
) -> None:
    import_text(database, storage, f'{HEADING}1,Lamp,"{A} {B}"\r\n')
    with database.session_scope() as session:
        product = store.lock_by_serial_number(session, "ann", "1")
        assert product is not None
        for name, url in (("a", A), ("b", B)):
            key = f"products/{product.id}/{name}.webp"
            storage.put(key, b"x", "image/webp")
            output = Output(key, "image/webp", 1, "5a", 4, 3, 0.5)
            store.record_output(session, product.id, url, output, job_id=None, now=NOW)
    away = Away(tmp_path / "files", public_url="http://p", node_url="http://n", signer=Signer(b"s"))
    # When the table names one of them
    report = import_text(database, away if is_away else storage, f"{HEADING}1,Lamp,{B}\r\n")
    # Then the other's row is gone, and its object too; one that can't be deleted stops nothing
    assert counts(report) == (0, 1, 0, 0)
    with database.read_scope() as session:
        assert list(session.scalars(sa.select(ProductImage.input_url))) == [B]
    left = {one.key.rpartition("/")[2] for one in storage.walk("products/")}
    assert left == ({"a.webp", "b.webp"} if is_away else {"b.webp"})


def test_what_is_no_table_changes_nothing(database: Database, storage: LocalStorage) -> None:
    with pytest.raises(NotATable):
        import_text(database, storage, "lamps\r\n1\r\n")
    assert products(database) == {}


def test_bad_rows_are_counted_and_the_first_hundred_told(database: Database, storage: LocalStorage) -> None:
    report = import_text(database, storage, HEADING + ",x,\r\n" * 250 + "1,Lamp,\r\n")
    assert counts(report) == (1, 0, 0, 250)
    assert [one.line for one in report.failed] == list(range(2, 102))


def test_the_same_table_twice_at_once_makes_each_product_once(
    database: Database, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PORTION", 20)
    rows = [f"{number},Lamp,{B}/{number}\r\n" for number in range(100)]
    texts = [HEADING + "".join(rows), HEADING + "".join(rows[::-1])]
    reports = []
    threads = [
        threading.Thread(target=lambda text=text: reports.append(import_text(database, storage, text)))
        for text in texts * 2
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.created for one in reports) == 100
    assert sum(one.unchanged for one in reports) == 300
    assert len(products(database)) == 100


# -- many ---------------------------------------------------------------------------------------------

FEW, MANY = importing.PORTION, 4 * importing.PORTION


class Rows(io.RawIOBase):
    """A table that is made while it is read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left = b""
        self._lines = self._make()

    def _make(self) -> Iterator[bytes]:
        yield HEADING.encode()
        for number in range(self._count):
            yield f"{number},Lamp {number},{B}?a{number} {B}?{number}\r\n".encode()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        assert (offset, whence) in ((0, 0), (0, 1))
        if whence == 0:
            self._lines, self._left = self._make(), b""
        return 0

    def tell(self) -> int:
        return 0

    def readinto(self, buffer: Any) -> int:
        while len(self._left) < len(buffer) and (line := next(self._lines, b"")):
            self._left += line
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def test_memory_does_not_grow_with_the_table(database: Database, storage: LocalStorage) -> None:
    def most_for(count: int, owner: str) -> int:
        tracemalloc.start()
        table = io.BufferedReader(Rows(count))
        report = importing.import_table(database, storage, owner, table, NOW)
        size = sum(len(piece) for piece in writing.write(database, owner, str))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert counts(report) == (count, 0, 0, 0)
        assert size > count * 60
        return most

    most_for(FEW, "first")  # what is made once
    few, many = most_for(FEW, "few"), most_for(MANY, "many")
    # Serial numbers are kept, to see which come twice: that is all
    assert many - few < MANY * 1000
    with database.read_scope() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Product)) == MANY + 2 * FEW

"""Reading tables of products: good ones of every kind, and hostile ones."""

import io
import tracemalloc
from typing import BinaryIO

import pytest

from backend.products import reading
from backend.products.fields import MOST_URLS, ProductFields
from backend.products.reading import MOST_CHARACTERS, BadRow, NotATable, Row

HEADING = "serial number,product name,input image URLs,output image URLs\r\n"
A, B = "https://a.example/1.jpg", "https://b.example/w_10,h_20/2.jpg"


def table(text: str | bytes) -> BinaryIO:
    return io.BytesIO(text.encode() if isinstance(text, str) else text)


def read(text: str | bytes) -> list[Row | BadRow]:
    return list(reading.read(table(text)))


def good(text: str | bytes) -> list[ProductFields]:
    rows = read(text)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.fields for row in rows if isinstance(row, Row)]


def bad(text: str | bytes) -> list[tuple[int, str, str]]:
    """Line, serial number and detail of all rows, none of which is good."""
    rows = read(text)
    assert all(isinstance(row, BadRow) for row in rows), rows
    return [(row.line, row.serial_number, row.detail) for row in rows if isinstance(row, BadRow)]


# -- all the kinds of tables that there are -----------------------------------------------------------

LAMP = ProductFields("1", "Lamp", (A, B))


@pytest.mark.parametrize(
    "text",
    [
        f'serial number,product name,input image URLs\n1,Lamp,"{A} {B}"\n',
        f'serial number,product name,input image URLs\r\n1,Lamp,"{A} {B}"\r\n',
        f'serial number,product name,input image URLs\r1,Lamp,"{A} {B}"\r',
        f'\ufeffserial number,product name,input image URLs\n1,Lamp,"{A}\n{B}"',
        f'serial_number;product_name;input_image_urls\n1;Lamp;"{A}\r\n{B}"\n',
        f"Serial Number;PRODUCT NAME;Input Image URLs\n1;Lamp;{A}|{B}\n",
        f"sep=;\r\nserial number;name;input image URLs\r\n1;Lamp;{A}|{B}\r\n",
        f'\ufeffSEP=,\nserial number,name,input image URLs\n1,Lamp,"{A},{B}"\n',
        f"Serial Number\tName\tInput Image URLs\n1\tLamp\t{A}; {B}\n",
        f'name,Input-image-URLs,serial number\nLamp,"{A},{B}",1\n',
        f"output image URL;input image URL;name;serial number\nhttps://o.example/;{A} , {B},;Lamp;1\n",
        f'weight,serial number,product name,input image URLs,colour\n3,1,Lamp,"{A}\n{B}",red\n',
        f'\n\nserial number,product name,input image URLs\n\n1,Lamp,"{A} {B} {A}"\n,,\n\n',
        f'"serial number","product name","input image URLs"\n" 1 "," Lamp ","; {A};{B};"\n',
        f'{HEADING}1,Lamp,"{A} {B}"\r\n',
        f'{HEADING}1,Lamp,"{A} {B}",,,\r\n',
    ],
)
def test_every_kind_of_table_is_understood(text: str) -> None:
    assert good(text) == [LAMP]


def test_a_table_without_rows_is_one() -> None:
    assert read(HEADING) == read(HEADING.rstrip()) == []


def test_quotes_newlines_and_all_scripts_come_through() -> None:
    text = f'{HEADING}"a,""b""","灯\n=2 🦊",\r\n'
    assert good(text) == [ProductFields('a,"b"', "灯\n=2 🦊", ())]


def test_the_apostrophe_of_an_export_is_taken_off_and_no_other() -> None:
    text = f"{HEADING}'-1,'=1+1,\r\n'0,''@x,\r\n"
    assert good(text) == [ProductFields("-1", "=1+1", ()), ProductFields("'0", "'@x", ())]


# -- rows that are bad --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "serial_number", "detail"),
    [
        (",Lamp,", "", "serial number: must not be blank"),
        ("1, ,", "1", "product name: must not be blank"),
        ("1,Lamp", "1", "the row has 2 cells, and 3 are needed"),
        ("1,Lamp,a,b,c", "1", "the row has 5 cells under 4 headings"),
        (f"{'9' * 101},Lamp,", "9" * 100, "serial number: has more than 100 characters"),
        (f"1,{'x' * 501},", "1", "product name: has more than 500 characters"),
        ("1,La\0mp,", "1", "product name: control characters are not allowed"),
        ("1\0,Lamp,", "1\0", "serial number: control characters are not allowed"),
        ("1,Lamp,lamp.jpg", "1", "not a URL that begins with http:// or https://: lamp.jpg"),
        ("1,Lamp,ftp://a.example/x", "1", "not a URL that begins with"),
        ("1,Lamp,javascript:alert(1)", "1", "not a URL that begins with"),
        ("1,Lamp,https:///x.jpg", "1", "not a URL that begins with"),
        ("1,Lamp,https://a.example:port/", "1", "not a URL: https://a.example:port/"),
        ("1,Lamp,https://[::1/", "1", "not a URL"),
        ("1,Lamp,https://me:secret@a.example/", "1", "must not have a user name"),
        (f"1,Lamp,https://a.example/{'x' * 2048}", "1", "more than 2048 characters"),
        ("1,Lamp," + " ".join(f"{A}?{n}" for n in range(MOST_URLS + 1)), "1", "more than 200 image URLs"),
        ('1,La"mp"x,', "", ""),
        ('1,"Lamp"x,', "", "quotes in this row are misplaced"),
    ],
)
def test_a_bad_row_says_its_line_and_why_and_the_others_go_in(
    row: str, serial_number: str, detail: str
) -> None:
    rows = read(f"{HEADING}0,Before,\r\n{row}\r\n2,After,\r\n")
    assert [one.line for one in rows] == [2, 3, 4]
    before, found, after = rows
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    if detail:
        assert isinstance(found, BadRow)
        assert (found.serial_number, found.line) == (serial_number, 3)
        assert detail in found.detail
    else:  # quotes within a cell are only unusual
        assert isinstance(found, Row)
        assert found.fields.name == 'La"mp"x'


def test_lines_are_those_of_the_file_also_after_cells_with_newlines() -> None:
    text = f'{HEADING}1,"two\r\nlines",\r\n\r\n2,,\r\n3,"x\ny\nz",nothing\r\n4,,\r\n'
    assert [(one.line, isinstance(one, Row)) for one in read(text)] == [
        (2, True), (5, False), (6, False), (9, False),
    ]  # fmt: skip


def test_rows_that_are_not_utf8_are_told_and_no_others_suffer() -> None:
    latin = HEADING.encode() + "1,Tür,\r\n".encode("latin-1") + "2,Tür,\r\n".encode()
    assert [type(one) for one in read(latin)] == [BadRow, Row]
    ((line, serial_number, detail),) = bad(latin.replace(b"2,T\xc3\xbcr,\r\n", b""))
    assert (line, serial_number) == (2, "1")
    assert "UTF-8" in detail
    # Also where the serial number itself is not: what is told of it can be sent
    ((_, serial_number, _),) = bad(HEADING.encode() + b"\xff\xfe,Lamp,\r\n")
    assert serial_number.encode() == b"??"


# -- what is no table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"", "These are missing: serial number, product name, input image URLs"),
        (b"\0" * 5000, "missing"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "missing"),
        (HEADING.encode("utf-16"), "in UTF-16 or UTF-32. Save it as CSV UTF-8"),
        (HEADING.encode("utf-32"), "in UTF-16 or UTF-32. Save it as CSV UTF-8"),
        (b"PK\x03\x04" + bytes(99), "a workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "an old Excel workbook"),
        (b'{"products": []}', "missing"),
        (b"serial number,product name\n1,Lamp\n", "These are missing: input image URLs"),
        (b"serial number,name,product name,input image URLs\n", "two columns product name"),
        (b'"serial number,product name,input image URLs\n1,Lamp,\n', "missing"),
        (b"," * 1_000_000, "missing"),
        (b"x" * 10_000_000, "missing"),
    ],
)
def test_what_is_no_table_is_refused(text: bytes, detail: str) -> None:
    with pytest.raises(NotATable, match=detail):
        read(text)


# -- hostile tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("x" * 10_000_000, "more than 1048576 characters"),
        ('"' + "x" * 10_000_000 + '"', "more than 1048576 characters"),
        ("🦊" * 2_500_000, "more than 1048576 characters"),
        ("," * 1_100_000, "more than 1048576 characters"),
        ('""' * 600_000, "more than 1048576 characters"),
        ("," * 1_000_000 + "x", "the row has 1000001 cells under 4 headings"),
        ("http://" * 140_000, "the row has 1 cells, and 3 are needed"),
        ('1,Lamp,"' + "," * 1_000_000 + 'x"', "more than 2048 characters"),
        ('1,Lamp,"' + ", " * 500_000 + 'x"', "not a URL"),
        ('1,Lamp,"' + "https://a.example/," * 50_000 + ' x"', "not a URL"),
    ],
)
def test_a_hostile_row_costs_little_and_spoils_no_other(row: str, detail: str) -> None:
    file = table(f"{HEADING}{row}\r\n2,After,\r\n")
    # When it is read
    tracemalloc.start()
    rows = list(reading.read(file))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Then it is bad, the next one is good, and memory was bounded
    found, after = rows
    assert isinstance(found, BadRow)
    assert found.line == 2
    assert detail in found.detail
    assert len(found.detail) < 300
    assert after == Row(3, ProductFields("2", "After", ()))
    assert most < 40 * MOST_CHARACTERS


def test_a_quote_that_is_never_closed_costs_what_it_swallows_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given one in a small file, then all that follows is in it
    text = f'{HEADING}0,Before,\r\n1,"Lamp,\r\n2,After,\r\n'
    rows = read(text)
    assert [type(one) for one in rows] == [Row, BadRow]
    assert (rows[1].line, "never closed" in str(rows[1])) == (3, True)
    # Given one in a large file, then reading goes on after a while
    monkeypatch.setattr(reading, "MOST_CHARACTERS", 50_000)
    count = 3 * 50_000 // 10
    text = f'{HEADING}1,"Lamp,\r\n' + "".join(f"{n},After,\r\n" for n in range(count))
    rows = read(text)
    assert isinstance(rows[0], BadRow)
    assert isinstance(rows[-1], Row)
    assert rows[-1].line == count + 2
    assert len(rows) > count / 2

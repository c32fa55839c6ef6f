"""Reads a table of products, row by row, whatever it is: memory stays bounded, bad rows spoil no others."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeVar

from backend.errors import InvalidRequest
from backend.products import fields
from backend.products.fields import ProductFields
from backend.products.table import COLUMNS, NEEDED, Column, column_of, meant

MOST_CHARACTERS = 1024 * 1024  # of one row, with all its lines
DELIMITERS = (",", ";", "\t")

Given = TypeVar("Given")
Kept = TypeVar("Kept")

csv.field_size_limit(MOST_CHARACTERS)  # of the whole process; nobody else reads CSV in it


class NotATable(InvalidRequest):
    """This is no table of products."""


@dataclass(frozen=True)
class Row:
    """A good row."""

    line: int  # of the file, from 1, where it begins
    fields: ProductFields


@dataclass(frozen=True)
class BadRow:
    """A row that can't be taken, and why."""

    line: int
    serial_number: str  # as far as it can be told
    detail: str


@dataclass(frozen=True)
class _Heading:
    delimiter: str
    columns: dict[Column, int]  # where each is
    width: int  # with those that are none of ours


class _TooLong(Exception):
    """The row is too long, or a quote in it is never closed."""


def read(file: BinaryIO) -> Iterator[Row | BadRow]:
    """The rows below the heading; empty ones are passed over. Raises `NotATable` before the first."""
    _refuse_others(file)
    heading = _heading(file)
    records = _from_heading(file, heading.delimiter)
    next(records)
    for line, cells in records:
        if isinstance(cells, str):
            yield BadRow(line, "", cells)
        else:
            yield _row(line, cells, heading)


# -- the heading --------------------------------------------------------------------------------------

_OTHERS: Final = (
    (b"PK\x03\x04", "a workbook (XLSX, ODS), or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (XLS)"),
    (b"\xff\xfe", "in UTF-16 or UTF-32"),
    (b"\xfe\xff", "in UTF-16 or UTF-32"),
)


def _refuse_others(file: BinaryIO) -> None:
    """What people take for a table because their spreadsheet has made it."""
    file.seek(0)
    begin = file.read(4)
    for magic, kind in _OTHERS:
        if begin.startswith(magic):
            raise NotATable(f"The file is {kind}. Save it as CSV UTF-8.")


def _heading(file: BinaryIO) -> _Heading:
    """Read with each delimiter: the one that finds more of our columns is meant."""
    found = {delimiter: _first(file, delimiter) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda one: sum(column_of(cell) is not None for cell in found[one]))
    return _Heading(delimiter, _columns(found[delimiter]), len(found[delimiter]))


def _first(file: BinaryIO, delimiter: str) -> list[str]:
    for _, cells in _from_heading(file, delimiter):
        return [] if isinstance(cells, str) else cells
    return []


def _from_heading(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """All records but for the hint that some put before them for Excel: `sep=;`."""
    for line, cells in _records(file, delimiter):
        is_hint = line == 1 and isinstance(cells, list) and cells[0].lower().startswith("sep=")
        if not is_hint:
            yield line, cells


def _columns(heading: list[str]) -> dict[Column, int]:
    columns: dict[Column, int] = {}
    for place, text in enumerate(heading):
        column = column_of(text)
        if column in columns:
            raise NotATable(f"The file has two columns {column}.")
        if column is not None:
            columns[column] = place
    missing = ", ".join(column for column in COLUMNS if column in NEEDED - columns.keys())
    if missing:
        raise NotATable(
            f"The file's first line must name the columns, in UTF-8. These are missing: {missing}."
        )
    return columns


# -- rows ---------------------------------------------------------------------------------------------


def _row(line: int, cells: list[str], heading: _Heading) -> Row | BadRow:
    place = heading.columns["serial number"]
    serial_number = meant(cells[place].strip()) if place < len(cells) else ""
    try:
        _check_width(cells, heading)
        return Row(line, _fields(serial_number, cells, heading.columns))
    except ValueError as exc:
        return BadRow(line, _showable(serial_number), str(exc))


def _check_width(cells: list[str], heading: _Heading) -> None:
    needed = 1 + max(heading.columns[column] for column in NEEDED)
    if len(cells) < needed:
        raise ValueError(f"the row has {len(cells)} cells, and {needed} are needed")
    if any(cells[heading.width :]):
        raise ValueError(
            f"the row has {len(cells)} cells under {heading.width} headings; "
            "what has commas in it must be in quotes"
        )


def _fields(serial_number: str, cells: list[str], columns: dict[Column, int]) -> ProductFields:
    name, urls = cells[columns["product name"]], cells[columns["input image URLs"]]
    if any("\udc80" <= character <= "\udcff" for character in serial_number + name + urls):
        raise ValueError("the row is not UTF-8; save the file as CSV UTF-8")
    return ProductFields(
        serial_number=_checked("serial number", fields.serial_number, serial_number),
        name=_checked("product name", fields.name, meant(name.strip())),
        image_urls=_checked("input image URLs", fields.image_urls, fields.split_urls(urls)),
    )


def _checked(column: Column, check: Callable[[Given], Kept], value: Given) -> Kept:
    try:
        return check(value)
    except ValueError as exc:
        raise ValueError(f"{column}: {exc}") from None


def _showable(text: str) -> str:
    return text[: fields.MOST_SERIAL_NUMBER_CHARACTERS].encode("utf-8", "replace").decode()


# -- records ------------------------------------------------------------------------------------------


def _records(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Where each record begins, and its cells or what is wrong with it. From the start of the file.

    After a record that is wrong the reader goes on with the line that follows.
    """
    file.seek(0)
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line = lines.begin_record()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except _TooLong:
                yield line, _WRONG_LENGTH
            except csv.Error as exc:
                yield line, _words(exc)
            else:
                if any(cell.strip() for cell in cells):
                    yield line, cells
    finally:
        text.detach()  # else it would close the file


_WRONG_LENGTH = f"the row has more than {MOST_CHARACTERS} characters, or a quote in it is never closed"


def _words(exc: csv.Error) -> str:
    if "end of data" in str(exc):
        return "a quote is opened in this row and never closed"
    return "quotes in this row are misplaced: a cell with quotes in it is put in quotes, and they are doubled"


class _Lines:
    """The lines of a file. A record that is too long ends where that is noticed, with its last line."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._number = 0
        self._left = MOST_CHARACTERS

    def begin_record(self) -> int:
        """The number of its first line."""
        self._left = MOST_CHARACTERS
        return self._number + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) > self._left:
            self._finish(line)
            raise _TooLong
        self._left -= len(line)
        return line

    def _finish(self, line: str) -> None:
        """Reads on to the end of a line, a piece at a time."""
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(MOST_CHARACTERS)

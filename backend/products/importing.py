"""Takes products from a table: the good rows go in, a portion at a time; the bad ones are told."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import BinaryIO

from backend.db import Database
from backend.products import erasing, reading, store
from backend.products.reading import BadRow, Row
from backend.storage.base import Storage

PORTION = 500  # rows in one transaction
MOST_TOLD = 100  # bad rows


@dataclass
class ImportReport:
    """What the table came to."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed_count: int = 0
    failed: list[BadRow] = field(default_factory=list)  # the first MOST_TOLD


def import_table(db: Database, storage: Storage, owner: str, file: BinaryIO, now: datetime) -> ImportReport:
    """Each row by its serial number; the same table once more changes nothing.

    Raises `NotATable` before anything is changed, and `DatabaseUnavailable`: what was taken by then stays.
    """
    report = ImportReport()
    rows = _good(reading.read(file), report)
    while portion := [row.fields for row in islice(rows, PORTION)]:
        with db.session_scope() as session:
            changes = store.put_all(session, owner, portion, now)
        report.created += changes.created
        report.updated += changes.updated
        report.unchanged += changes.unchanged
        erasing.drop(storage, changes.unneeded)
    return report


def _good(rows: Iterable[Row | BadRow], report: ImportReport) -> Iterator[Row]:
    """Those that can go in; the others are put into the report."""
    lines: dict[str, int] = {}  # by serial number
    for row in rows:
        if isinstance(row, Row):
            serial_number = row.fields.serial_number
            first = lines.setdefault(serial_number, row.line)
            if first == row.line:
                yield row
                continue
            row = BadRow(row.line, serial_number, f"line {first} has this serial number already")
        report.failed_count += 1
        if len(report.failed) < MOST_TOLD:
            report.failed.append(row)

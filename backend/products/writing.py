"""Writes all of an owner's products as a table, a portion at a time."""

import csv
import io
from collections.abc import Callable, Iterator
from uuid import UUID

from backend.db import Database
from backend.products import store
from backend.products.models import Product
from backend.products.table import COLUMNS, harmless

PORTION = 200  # products that are held at once
BYTE_ORDER_MARK = "\ufeff"  # without it spreadsheets take the file for one in their country's old encoding

UrlOf = Callable[[str], str]  # of the object with this key


def write(db: Database, owner: str, url_of: UrlOf) -> Iterator[str]:
    """Pieces of the table, oldest products first. Each portion is asked for by itself: what is changed while
    it is read may be there as it was or as it is. Raises `DatabaseUnavailable`, also amidst.
    """
    yield BYTE_ORDER_MARK + _lines([list(COLUMNS)])
    after: UUID | None = None
    while True:
        with db.read_scope() as session:
            products = store.portion(session, owner, after, PORTION)
        if not products:
            return
        yield _lines([_cells(product, url_of) for product in products])
        after = products[-1].id


def _cells(product: Product, url_of: UrlOf) -> list[str]:
    """Input and output of one image stand in the same line of their cells; no output, an empty line."""
    inputs = [image.input_url for image in product.images]
    outputs = [url_of(image.key) if image.key else "" for image in product.images]
    urls = ["\n".join(column) if any(column) else "" for column in (inputs, outputs)]
    return [harmless(product.serial_number), harmless(product.name), *urls]


def _lines(rows: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()

"""How products look as a table (CSV): its columns, and cells that no spreadsheet takes for a formula."""

import re
from typing import Literal

Column = Literal["serial number", "product name", "input image URLs", "output image URLs"]
COLUMNS: tuple[Column, ...] = ("serial number", "product name", "input image URLs", "output image URLs")
NEEDED = frozenset[Column]({"serial number", "product name", "input image URLs"})

_NAMES: dict[str, Column] = {
    "serial number": "serial number",
    "product name": "product name",
    "name": "product name",
    "input image urls": "input image URLs",
    "input image url": "input image URLs",
    "output image urls": "output image URLs",
    "output image url": "output image URLs",
}
# What a spreadsheet may run: =, +, -, @ (their wide forms, too), tabs and returns, at the start of a cell.
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")


def column_of(heading: str) -> Column | None:
    """The column that a heading means: `Serial Number`, `serial_number`, ...; None: none of ours."""
    return _NAMES.get(" ".join(re.split(r"[\s_-]+", heading.strip())).casefold())


def harmless(text: str) -> str:
    """The text for a cell: what could be a formula begins with an apostrophe, as spreadsheets do it."""
    return f"'{text}" if _FORMULA.match(text) else text


def meant(cell: str) -> str:
    """The text that `harmless` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

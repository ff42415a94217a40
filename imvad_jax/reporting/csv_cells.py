"""Cells of CSV files: escapes text that a spreadsheet would run as a formula."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

# What spreadsheets take for a formula, behind apostrophes that stood there before.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def defuse(cell: object) -> object:
    """A cell as it is written: text that begins with = + - @, a tab or CR gets an apostrophe.

    Numbers stay numbers, also those that are text already.
    """
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell) or not _FORMULA.match(cell):
        return cell
    return "'" + cell


def restore(cell: str) -> str:
    """The text that `defuse` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_rows(
    file: TextIO, names: Sequence[str], rows: Iterable[Mapping], *, line_end: str
) -> None:
    """Writes a head and rows as CSV, their cells defused; what a row lacks is empty.

    What it has besides `names` is left out.
    """
    lines = csv.DictWriter(file, names, "", extrasaction="ignore", lineterminator=line_end)
    lines.writeheader()
    for row in rows:
        lines.writerow({name: defuse(value) for name, value in row.items()})

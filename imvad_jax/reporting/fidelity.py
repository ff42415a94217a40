"""The tables of docs/fidelity.md, from the comparisons of the golden tests."""

import json
import re
from pathlib import Path

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.reporting.text_table import Form, format_rows

COMMAND = "python -m experiments.fidelity"
KEYS = {"method", "quantity", "computed_in", "difference", "tolerance"}
# A table stands between these; what lies outside of them is written by hand.
BEGIN, END = "<!-- differences: {} -->", "<!-- end of differences -->"


def load_record(path: Path) -> dict:
    """The record of the golden tests: `made_with`, and `comparisons` with `KEYS` each.

    Raises:
      UserError: there is no such file, or it is no record; it is named.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--record={path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"--record={path}: not JSON ({error})") from None
    rows = record.get("comparisons") if isinstance(record, dict) else None
    if not rows or not isinstance(record.get("made_with"), dict):
        raise UserError(f"--record={path}: expected made_with and comparisons")
    for row in rows:
        if missing := sorted(KEYS - set(row)):
            raise UserError(f"--record={path}: a comparison lacks {', '.join(missing)}: {row}")
    return record


def _number(value: float) -> str:
    return "equal" if value == 0 else f"{value:.1e}"


def method_table(record: dict, method: str) -> str:
    """All comparisons of a method, in the order of the tests."""
    rows = [
        [row["quantity"], row["computed_in"], _number(row["difference"]),
         _number(row["tolerance"])]
        for row in record["comparisons"]
        if row["method"] == method
    ]  # fmt: skip
    head = ("quantity", "computed in", "difference", "allowed")
    return format_rows(head, rows, Form.COMPACT, left=2)


def overview(record: dict) -> str:
    """What was compared of each method in a line, and with what that was measured.

    Every method has maps or scores among its quantities.
    """
    found: dict[str, list] = {}
    for row in record["comparisons"]:
        found.setdefault(row["method"], []).append(row)
    rows = []
    for method, compared in found.items():
        title = methods.get(method).title
        results = max(
            row["difference"] for row in compared if row["quantity"].startswith(("map", "score"))
        )
        worst = max(compared, key=lambda row: row["difference"] / (row["tolerance"] or 1))
        share = worst["difference"] / (worst["tolerance"] or 1)
        rows.append(
            [title, str(len(compared)), _number(results),
             f"{share:.0%} ({worst['quantity']})"]
        )  # fmt: skip
    columns = ("method", "quantities", "map and score differ by", "nearest to what is allowed")
    made = record["made_with"]
    versions = ", ".join(f"{k} {v}" for k, v in sorted((made.get("versions") or {}).items()))
    basis = f"Computed on {made.get('hardware')}; {versions}; commit {made.get('commit')}."
    table = format_rows(columns, rows, Form.COMPACT, left=len(columns))
    return f"{table}\n\n{basis}"


def filled_page(page: str, record: dict) -> str:
    """The page with its tables written anew.

    Raises:
      UserError: the page has no place for a method of the record, or one for a method that is not
        in it.
    """
    compared = {row["method"] for row in record["comparisons"]}
    pattern = re.compile(BEGIN.format(r"(\w+)") + ".*?" + END, re.DOTALL)
    places = set(pattern.findall(page))
    if places != compared | {"all"}:
        odd = ", ".join(sorted(places ^ (compared | {"all"})))
        raise UserError(f"--page: places for tables and methods of the record differ: {odd}")

    def fill(match: re.Match) -> str:
        name = match[1]
        table = overview(record) if name == "all" else method_table(record, name)
        return f"{BEGIN.format(name)}\n{table}\n{END}"

    return pattern.sub(fill, page)

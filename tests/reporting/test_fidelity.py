"""docs/fidelity.md fits its record, and what is no record is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.reporting import fidelity

ROOT = Path(__file__).resolve().parents[2]
ROW = {"method": "stpm", "quantity": "map", "computed_in": "float32", "difference": 3e-7,
       "tolerance": 1e-5}  # fmt: skip
PAGE = """# Title
<!-- differences: all -->
<!-- end of differences -->
by hand
<!-- differences: stpm -->
old
<!-- end of differences -->
"""


def record(*rows, made_with=None):
    return {"made_with": made_with or {"hardware": "a processor"}, "comparisons": list(rows)}


def test_the_page_in_the_repository_is_what_the_command_writes():
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    found = fidelity.load_record(ROOT / "docs" / "fidelity.json")
    assert fidelity.filled_page(page, found) == page, f"run: {fidelity.COMMAND}"


def test_the_record_holds_every_method_and_nothing_that_failed():
    rows = fidelity.load_record(ROOT / "docs" / "fidelity.json")["comparisons"]
    assert {row["method"] for row in rows} == set(methods.METHODS) - {"raw_color"}
    assert all(row["difference"] <= row["tolerance"] for row in rows)


def test_tables_are_filled_and_the_rest_stays():
    equal = ROW | {"quantity": "score | of 2", "difference": 0.0}
    text = fidelity.filled_page(PAGE, record(ROW, equal))
    assert "old" not in text and "by hand" in text
    assert "| map | float32 | 3.0e-07 | 1.0e-05 |" in text
    assert r"| score \| of 2 | float32 | equal | 1.0e-05 |" in text
    assert "| STPM | 2 | 3.0e-07 | 3% (map) |" in text and "a processor" in text
    assert fidelity.filled_page(text, record(ROW, equal)) == text


def test_a_page_without_a_place_for_a_method_is_refused():
    with pytest.raises(UserError, match="differ: cfa"):
        fidelity.filled_page(PAGE, record(ROW, ROW | {"method": "cfa"}))
    with pytest.raises(UserError, match="differ: all"):
        fidelity.filled_page(PAGE.replace("differences: all", ""), record(ROW))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "expected made_with and comparisons"),
        (json.dumps({"made_with": {}, "comparisons": []}), "expected made_with and"),
        (json.dumps(record({"method": "stpm"})), "lacks computed_in, difference, quantity"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, text, message):
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"record={path}: .*{message}"):
        fidelity.load_record(path)


def test_check_says_that_the_page_differs(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "record.json").write_text(json.dumps(record(ROW)))

    def run(*options):
        command = [
            sys.executable, "-m", "experiments.fidelity", f"--page={tmp_path / 'page.md'}",
            f"--record={tmp_path / 'record.json'}", *options,
        ]  # fmt: skip
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("--check")
    assert done.returncode == 1 and "does not fit" in done.stderr
    assert (tmp_path / "page.md").read_text() == PAGE
    assert run().returncode == 0 and "3.0e-07" in (tmp_path / "page.md").read_text()
    assert run("--check").returncode == 0

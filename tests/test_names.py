"""Names of other people as names of files, on a terminal, and in tables."""

import csv
import io

import pytest

from imvad_jax import names
from imvad_jax.data import decoded_cache
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import escaped, readable
from imvad_jax.reporting import csv_cells
from imvad_jax.reporting.grid import cell_dir
from imvad_jax.reporting.heatmaps import picture_names
from imvad_jax.reporting.result_files import folder_name
from imvad_jax.reporting.text_table import Form, format_rows, markdown_cell

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\tx", "\rx", "'=x", "''@"]


@pytest.mark.parametrize("name", ["screw", "metal_nut", "a b", "Größe", "x" * 150, "con_1", ".a",
                                  "COM10", "=cmd", "a~b", "1.5"])  # fmt: skip
def test_ordinary_names_stay(name):
    assert names.safe(name) == name


@pytest.mark.parametrize("name", ["CON", "nul.txt", "com1.tar.gz", "LPT\u00b9", "a:b", "a\\b", "a?",
                                  '"', "<b>", "x|y", "a*", "dot.", "space ", "..", "", "\x1b[31m",
                                  "x" * 300, "Ü" * 120, "\udce4" * 60])  # fmt: skip
def test_other_names_are_changed_so_that_every_system_takes_them(name):
    safe = names.safe(name)
    assert safe != name and names.is_changed(safe) and names.safe(safe) == safe
    assert len(safe.encode()) <= names.MOST and not set('\\/:*?"<>|\x1b') & set(safe)
    assert safe[-1] not in ". " and safe.split(".")[0].lower() not in {"con", "nul", "com1"}


def test_where_files_have_ascii_names_others_are_changed(monkeypatch):
    monkeypatch.setattr(names.sys, "getfilesystemencoding", lambda: "ascii")
    assert names.safe("screw") == "screw" and names.safe("café").startswith("caf_~")
    assert picture_names(["Größe.png", "Grüße.png"])[0].isascii()


def test_names_that_differ_stay_apart():
    given = ["a:b", "a?b", "a*b", "x" * 300, "x" * 301, "CON", "con"]
    assert len(set(map(names.safe, given))) == len(given)


def test_pictures_of_odd_names_get_files(tmp_path):
    odd = ["A.png", "a.png", "nul.png", "x" * 251 + ".png", "Ü" * 124 + ".png", "cafe\u0301.png",
           "caf\u00e9.png"]  # fmt: skip
    found = picture_names(odd)
    assert found[:2] == ["A.png", "a-2.png"] and found[2].startswith("nul~")
    assert len({names.key(name) for name in found}) == len(odd)
    for name in found:
        (tmp_path / name).touch()
    assert picture_names(["broken_large/000.png"]) == ["broken_large-000.png"]


def test_cells_and_results_of_odd_categories_get_folders(tmp_path):
    assert cell_dir("padim", "screw", "cpu", 0) == "padim/screw/cpu-seed0"
    for category in ("Ü" * 120, "\x1b[2J", "AUX"):
        (tmp_path / cell_dir("padim", category, "cpu", 0)).mkdir(parents=True)
        assert names.is_changed(folder_name(category)) or category == "\x1b[2J"


def test_the_cache_of_an_odd_category_is_found_by_its_name(tmp_path):
    geometry = Geometry(64, 64)
    for category in ("screw", "a:b[1]", "Ü" * 120):
        path = decoded_cache.path_of(str(tmp_path), "mvtec_ad", category, geometry, "0" * 12)
        decoded_cache.write(path, {"category": category}, {})
        assert decoded_cache.find(str(tmp_path), "mvtec_ad", category, geometry) == path
    found = decoded_cache.cached_categories(str(tmp_path), "mvtec_ad")
    assert found == sorted(["screw", "a:b[1]", "Ü" * 120])


def test_formulas_are_defused_and_read_back():
    file = io.StringIO()
    rows = [{"file": text, "score": -1.5, "more": "left out"} for text in FORMULAS]
    rows += [{"file": "-1", "score": "-0.25"}, {"file": "plain"}]
    csv_cells.write_rows(file, ("file", "score"), rows, line_end="\r\n")
    read = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert all(row["file"].startswith("'") for row in read[: len(FORMULAS)])
    assert [csv_cells.restore(row["file"]) for row in read] == [*FORMULAS, "-1", "plain"]
    assert [row["score"] for row in read] == ["-1.5"] * len(FORMULAS) + ["-0.25", ""]


def test_names_give_a_terminal_no_orders():
    assert readable("\x1b]0;evil\x07\n.png") == r"\x1b]0;evil\x07\x0a.png"
    assert readable(b"\xe4.png".decode("utf-8", "surrogateescape")) == r"\xe4.png"
    assert escaped("a\u202eb\x9bc\n", kept="\n") == "a\\u202eb\\x9bc\n"
    table = format_rows(["name", "x"], [["\x1b[31m", "1"]])
    assert "\x1b" not in table and r"\x1b[31m" in table


def test_names_break_no_markdown():
    cells = [r"a\|b|c", "[x](javascript:y)", "<img>", "two\nlines", "\x1b[0m"]
    text = format_rows(["name"], [[cell] for cell in cells], Form.COMPACT)
    assert text.splitlines()[2:] == [
        r"| a&#92;\|b\|c |", "| [x]&#40;javascript:y) |", "| &lt;img> |", "| two lines |",
        r"| \x1b[0m |",
    ]  # fmt: skip
    assert markdown_cell("metal_nut **official** --sigma=2") == "metal_nut **official** --sigma=2"

"""Figures as text."""

import pytest

from imvad_jax.reporting.metric_names import format_value, mean_of
from imvad_jax.reporting.table import format_table

ROWS = {
    "bottle": {"image_auroc": 1.0, "image_ap": 0.9, "pixel_auroc": 0.5, "pixel_ap": None},
    "screw": {"image_auroc": 0.5, "image_ap": 0.8, "pixel_auroc": 0.25, "pixel_ap": 0.1234},
}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98149, ".981"), (1.0, "1.000"), (0.9996, "1.000"), (0.0, ".000"), (-0.25, "-.250"),
     (None, "-"), (float("nan"), "-")],
)  # fmt: skip
def test_format_value(value, text):
    assert format_value(value) == text


def test_mean_leaves_out_what_is_missing():
    assert mean_of([1.0, None, 0.5, float("nan")]) == (0.75, 2)
    assert mean_of([None]) == (None, 0)


def test_columns_and_averages():
    lines = format_table(ROWS).splitlines()
    headings = " ".join(lines[0].split())
    assert headings == "category image AUROC image AP pixel AUROC pixel AP PRO"
    assert lines[2].split() == ["bottle", "1.000", ".900", ".500", "-", "-"]
    assert lines[3].split() == ["screw", ".500", ".800", ".250", ".123", "-"]
    # PRO is missing everywhere, pixel AP in one of the two.
    assert lines[5].startswith("average (2 of 2; pixel AP 1)")
    assert lines[5].split()[-5:] == [".750", ".850", ".375", ".123", "-"]
    assert len({len(line) for line in (lines[0], lines[2], lines[3], lines[5])}) == 1  # aligned


def test_markdown():
    lines = format_table({"a|b": ROWS["screw"]}, markdown=True).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")][:2] == [
        "category",
        "image AUROC",
    ]
    assert set(lines[1]) <= set("|-: ")
    assert r"a\|b" in lines[2]
    assert "average (1 of 1)" in lines[-1]


def test_no_rows():
    assert "average (0 of 0)" in format_table({})

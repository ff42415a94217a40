"""Tables, picture and page of made-up costs."""

import json

import pytest

from imvad_jax.benchmarks import scaling_report as scaling
from imvad_jax.benchmarks.report import render_benchmarks
from imvad_jax.errors import UserError
from imvad_jax.reporting.plots import figure_png
from tests.reporting.test_benchmarks import cells


def made(value, seconds, rate, **changes):
    return {
        "value": value, "seconds": seconds, "images_per_s": rate, "devices": 2, "virtual": False,
        "batch_size": 8, "memory": {"bytes": 3 * 2**29},
    } | changes  # fmt: skip


def record(**changes):
    points = {
        "images": [made(64, 2.0, 32.0), made(128, 4.0, 48.0)],
        "bank": [made(1024, 0.5, 16.0), {"value": 4096, "error": "out of memory"}],
        "devices": [made(1, 1.0, 8.0), made(8, 1.0, 4.0, devices=8, virtual=True, memory=None)],
    }
    return {
        "method": "patchcore", "preset": "cpu", "overrides": {}, "config": {"backbone": "resnet18"},
        "hardware": "A processor, 2 cores", "commit": "0123456789", "others_share": 0.02,
        "points": points,
    } | changes  # fmt: skip


def test_a_row_a_point():
    text = scaling.format_tables([record()], markdown=True)
    row = cells(text, "fit s")
    assert list(row.values()) == [
        "patchcore (cpu, resnet18)", "64", "2", "2.00", "32.0", "1.00", "1.50"
    ]  # fmt: skip
    second = next(line for line in text.splitlines() if "|    128 |" in line)
    assert "| 1.50 |" in second.replace("     ", " ")  # 48 over 32 images a second
    row = cells(text, "patches")
    assert (row["batch"], row["step s"], row["images/s"]) == ("8", "0.500", "16.0")
    assert "- patchcore, 4096 patches: FAILED (out of memory)" in text
    virtual = next(line for line in text.splitlines() if "8 virtual" in line)
    assert [c.strip() for c in virtual.split("|")][-3:-1] == ["0.500", "-"]
    assert scaling.format_tables([]) == ""


def test_the_picture_is_drawn_and_equal_records_give_equal_bytes():
    records = [record(), record(method="padim", points={"images": [made(64, 1.0, 64.0)]})]
    first, second = (figure_png(scaling.figure(records)) for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")
    assert len(scaling.figure(records).axes) == 4 and len(scaling.figure(records[1:]).axes) == 2


def test_the_page_holds_the_tables_and_the_picture_beside_the_file(tmp_path):
    stored = tmp_path / "benchmarks"
    stored.mkdir()
    found = {"command": "python -m ... --scaling", "records": [], "scaling": [record()]}
    (stored / "scaling.json").write_text(json.dumps(found))
    text = render_benchmarks(stored)
    assert "- A processor, 2 cores; used by other processes: 2%" in text
    assert "- commit 0123456789: `python -m ... --scaling`" in text
    assert "**Scoring against bank**" in text and ".png" not in text
    (stored / "scaling.png").write_bytes(b"")
    assert "![scaling](benchmarks/scaling.png)" in render_benchmarks(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"others_share": 0.4}, "40% of the machine"), ({"points": {"images": [{}]}}, "no 'value'")],
)
def test_busy_machines_and_damaged_files_are_refused(tmp_path, changes, message):
    found = {"command": "", "records": [], "scaling": [record(**changes)]}
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=message):
        render_benchmarks(tmp_path)

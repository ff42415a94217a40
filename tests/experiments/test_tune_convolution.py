"""What the rule of convolutions is measured with."""

import subprocess
import sys

import pytest

from imvad_jax.benchmarks import convolutions
from imvad_jax.training.parallel import Parallel


@pytest.mark.parametrize(
    "shape, name",
    [
        (convolutions.Shape(8, 3, 2, 4, 6), "3x3/2 4->6 at 8"),
        (convolutions.Shape(8, 5, 1, 6, 6, depthwise=True), "5x5/1 6 depthwise at 8"),
    ],
)
def test_a_shape_is_measured_in_three_directions(shape, name, monkeypatch):
    monkeypatch.setattr(convolutions, "LEAST_SECONDS", 0)
    rows = convolutions.measure_shape(shape, Parallel())
    assert [row.direction for row in rows] == ["forward", "input", "kernel"]
    assert {row.shape for row in rows} == {name}
    assert all(row.xla > 0 and row.rule > 0 for row in rows)


def test_the_table_and_what_is_slower():
    rows = [
        convolutions.Row("a", "forward", 100, 250, "winograd"),
        convolutions.Row("b", "kernel", 100, 60, "own"),
    ]
    assert "2.50  winograd" in convolutions.table(rows)
    told = "b, kernel: the rule takes the form that reaches 60% of the rate of XLA's"
    assert convolutions.slower(rows, 0.3) == [told]
    assert convolutions.slower(rows, 0.5) == []


def test_what_is_slower_is_measured_once_more(monkeypatch):
    fine, noisy, slow = (convolutions.Shape(8, 3, 1, 4, outputs) for outputs in (4, 5, 6))
    monkeypatch.setattr(convolutions, "SHAPES", (fine, noisy, slow))
    second = {noisy: 90, slow: 40}

    def measure_shape(shape, parallel):
        return [convolutions.Row(str(shape), "forward", 100, second[shape], "narrow")]

    monkeypatch.setattr(convolutions, "measure_shape", measure_shape)
    rates = {fine: 80, noisy: 50, slow: 50}
    rows = [
        convolutions.Row(str(key), "forward", 100, rate, "narrow") for key, rate in rates.items()
    ]
    rows = convolutions.measured_again(rows, 0.3, Parallel())
    assert [row.rule for row in rows] == [80, 90, 50]


def test_a_file_that_is_there_stays(tmp_path):
    there = tmp_path / "found.json"
    there.write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.tune_convolution", f"--out={there}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"--out={there}: exists; expected a new file" in done.stderr
    assert there.read_text() == "mine"

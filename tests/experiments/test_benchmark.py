"""The benchmark as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imvad_jax.reporting.benchmarks import render_benchmarks

TOP = Path(__file__).resolve().parent.parent.parent


def call(*arguments):
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_method_that_fails_is_marked_and_the_rest_goes_on(tmp_path):
    done = call(
        "--method=padim,raw_color", "--preset=smoke", f"--weights={tmp_path / 'absent.npz'}",
        f"--workdir={tmp_path / 'out'}", "--num_images=6", "--repeats=2", "--seconds=0",
        "--fit_repeats=0", "--num_devices=2",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    failed, measured = json.loads((tmp_path / "out" / "benchmark.json").read_text())["records"]
    assert failed["method"] == "padim" and "no such file of weights" in failed["error"]
    assert measured["method"] == "raw_color" and measured["fit"]["seconds"] is None
    assert measured["images_from"] == "random" and not measured["compiled_cache"]
    assert "padim: FAILED" in done.stdout and "raw_color (smoke)" in done.stdout
    assert Image.open(tmp_path / "out" / "benchmark.png").size[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method=padmi"], "did you mean 'padim'?"),
        (["--method=padim,spade", "--coreset_ratio=0.1"], "none of padim, spade has such a field"),
        (["--method=padim", "--compare=pytorch", "--workdir=unused"], "did you mean 'torch'?"),
    ],
)
def test_bad_flags_are_one_line(arguments, message):
    done = call(*arguments)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


def test_the_page_fits_the_stored_files():
    text = (TOP / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert text == render_benchmarks(TOP / "benchmarks")

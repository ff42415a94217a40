"""The benchmark as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imvad_jax import presets
from imvad_jax.benchmarks.report import render_benchmarks
from imvad_jax.errors import UserError

TOP = Path(__file__).resolve().parent.parent.parent


def call(*arguments):
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
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
        (["--compare=pytorch"], "--compare: unknown value 'pytorch'; did you mean 'torch'? "),
        (["--compare=anomalib", "--data_dir=parts", "--category=bolt",
          f"--anomalib_python={sys.executable}"], "--anomalib_python="),
    ],
)  # fmt: skip
def test_a_bad_flag_is_one_line(arguments, message):
    done = call("--method=padim", *arguments, "--workdir=unused")
    assert done.returncode == 2 and not Path("unused").exists()
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {message}")


def test_of_several_methods_each_takes_the_fields_that_it_has():
    given = {"coreset_ratio": "0.5", "batch_size": "4"}
    found = presets.resolve_all(["padim", "patchcore"], "smoke", given)
    assert found["padim"][1] == {"batch_size": "4"} and found["padim"][0].batch_size == 4
    assert found["patchcore"][1] == given and found["patchcore"][0].coreset_ratio == 0.5
    with pytest.raises(UserError, match="coreset_ratio: none of padim, spade has such a field"):
        presets.resolve_all(["padim", "spade"], "smoke", given)
    with pytest.raises(UserError, match="PaDiMConfig has no such field"):
        presets.resolve_all(["padim"], "smoke", given)


def test_the_page_fits_the_stored_files():
    text = (TOP / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert text == render_benchmarks(TOP / "benchmarks")

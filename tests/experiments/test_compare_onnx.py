"""ONNX Runtime beside a detector, in the environment that `make install-onnx` makes."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from imvad_jax import sealed
from imvad_jax.benchmarks import compare_onnx
from imvad_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-onnx" / "bin" / "python"


def test_what_is_missing_is_named(monkeypatch):
    known = {"onnxruntime": None, "jax2onnx": object()}
    monkeypatch.setattr(importlib.util, "find_spec", known.get)
    with pytest.raises(UserError, match=r"onnxruntime not installed here; 'make install-onnx'"):
        compare_onnx.check_installed()


@pytest.mark.slow
def test_all_parts_are_timed_and_agree(tmp_path):
    if not PYTHON.exists():
        pytest.skip("no environment for ONNX: make install-onnx")
    # Without the flags of the tests, which compile programs that are slower.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [str(PYTHON), "-m", "experiments.benchmark", "--method=padim,draem", "--preset=smoke",
         "--compare=onnx", "--num_images=4", "--fit_repeats=0", "--repeats=1", "--seconds=0",
         "--score_batches=1", f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    padim, draem = sealed.read(tmp_path / "run" / "benchmark.json")["records"]
    works = ["score", "StableHLO"]
    for record, expected in ((padim, [*works, "backbone"]), (draem, works)):
        parts = record["compare"]["onnx"]["parts"]
        assert list(parts) == [*expected, *(f"{work}, one image" for work in expected)]
        assert all(part["difference"] < 1e-4 for part in parts.values())
        assert all(part["ratio"] > 0 for part in parts.values())

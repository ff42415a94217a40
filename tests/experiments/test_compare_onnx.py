"""ONNX Runtime beside a detector, in the environment that `make install-onnx` makes."""

import importlib.util
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from imvad_jax import sealed
from imvad_jax.benchmarks import compare_onnx
from imvad_jax.errors import UserError
from imvad_jax.export import to_onnx, whole

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-onnx" / "bin" / "python"


def test_what_is_missing_is_named(monkeypatch):
    known = {"onnxruntime": None, "jax2onnx": object()}
    monkeypatch.setattr(importlib.util, "find_spec", known.get)
    with pytest.raises(UserError, match=r"onnxruntime not installed here; 'make install-onnx'"):
        compare_onnx.check_installed()


def test_what_cannot_be_converted_is_said(tmp_path, monkeypatch):
    def write(*_):
        raise NotImplementedError("jax2onnx fails at top_k")

    monkeypatch.setattr(to_onnx, "write", write)
    function = SimpleNamespace(model=SimpleNamespace(title="CFA"))
    with pytest.raises(UserError, match="CFA cannot be converted to onnx .*fails at top_k"):
        compare_onnx._exports(function, tmp_path, 1)  # pyright: ignore[reportArgumentType]


def test_what_an_onnx_file_cannot_hold_is_said_before_it_is_made():
    cpu = SimpleNamespace(parallel=SimpleNamespace(local=jax.devices()[:1]))
    large = np.broadcast_to(np.float32(0), (2**15, 2**15))
    function = whole.Whole(cast(Any, SimpleNamespace(title="PaDiM")), {"factors": large})
    with pytest.raises(UserError, match="compare=onnx: the arrays of PaDiM take 4.00 GiB"):
        compare_onnx.compare(cast(Any, cpu), function)


@pytest.mark.slow
def test_all_parts_are_timed_and_agree(tmp_path):
    if not PYTHON.exists():
        pytest.skip("no environment for ONNX: make install-onnx")
    # Without the flags of the tests, which compile programs that are slower.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [str(PYTHON), "-m", "experiments.benchmark", "--method=padim", "--preset=smoke",
         "--compare=onnx", "--num_images=4", "--fit_repeats=0", "--repeats=1", "--seconds=0",
         "--score_batches=1", f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = sealed.read(tmp_path / "run" / "benchmark.json")["records"]
    parts, works = record["compare"]["onnx"]["parts"], ["score", "StableHLO", "backbone"]
    assert list(parts) == [*works, *(f"{work}, one image" for work in works)]
    assert all(part["difference"] < 1e-4 for part in parts.values())
    assert all(part["ratio"] > 0 for part in parts.values())

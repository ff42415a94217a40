"""What one folder of tests has traced, another with other forms of convolutions does not use."""

import subprocess
import sys
from pathlib import Path

TRACED = """\
import jax
import numpy as np

from imvad_jax.ops.convolution import convolve

_STEP = jax.jit(lambda x, kernel: convolve(x, kernel, (1, 1), ((1, 1), (1, 1))))


def is_winograd():
    arrays = np.zeros((1, 8, 8, 128), np.float32), np.zeros((3, 3, 128, 128), np.float32)
    return "stablehlo.convolution" not in _STEP.lower(*arrays).as_text()
"""
TEST = """\
from traced import is_winograd


def test_{name}():
    assert is_winograd() is {expected}
"""


def test_a_folder_has_its_own_forms(tmp_path):
    (tmp_path / "traced.py").write_text(TRACED)
    for folder, expected in (("ops", True), ("training", False)):
        (tmp_path / folder).mkdir()
        text = TEST.format(name=folder, expected=expected)
        (tmp_path / folder / f"test_{folder}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "tests.conftest", "-p", "no:cacheprovider",
         "-o", f"pythonpath={tmp_path}", f"--rootdir={tmp_path}", str(tmp_path)],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # Those that share forms come one after the other, whatever the names of their folders.
    assert done.stdout.index("test_training") < done.stdout.index("test_ops")

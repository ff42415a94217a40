"""The program killed in the middle of a training, and started again by the same command."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.data.trees import mvtec_tree


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
    data = mvtec_tree(tmp_path / "data", train=8)

    def start(name):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", "--method=stpm", "--preset=smoke",
             "--weights=random", f"--data_dir={data}", "--epochs=30", "--checkpoint_every=2",
             "--num_devices=2", f"--workdir={tmp_path / name}",
             f"--cache_dir={tmp_path / 'cache'}"],
            env={**os.environ, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def epochs(name):
        path = tmp_path / name / "history.json"
        return len(json.loads(path.read_text())) if path.is_file() else 0

    whole = start("whole")
    assert "image AUROC" in whole.communicate(timeout=300)[0]
    killed = start("killed")
    while epochs("killed") < 5:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert epochs("killed") < 30 and not (tmp_path / "killed/metrics.json").exists()
    output = start("killed").communicate(timeout=300)[0]
    assert "resuming after epoch" in output and "image AUROC" in output
    assert epochs("killed") == 30
    with (
        np.load(tmp_path / "whole/predictions.npz") as one,
        np.load(tmp_path / "killed/predictions.npz") as two,
    ):
        for name in ("image_score", "anomaly_map"):
            np.testing.assert_array_equal(one[name], two[name])

"""A small finished run on disk."""

import json

import numpy as np
import pytest

from tests.reporting.made_up import METRICS, made_up_predictions, made_up_record


@pytest.fixture
def run_dir(tmp_path):
    """A run directory without heat maps."""
    path = tmp_path / "screw"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(made_up_record()))
    (path / "metrics.json").write_text(json.dumps(METRICS))
    stages = {"fit": {"wall_s": 12.34, "waiting_s": 0.5}}
    (path / "timings.json").write_text(json.dumps(stages))
    np.savez(path / "predictions.npz", **made_up_predictions()[0])
    return path

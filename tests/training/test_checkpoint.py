"""Fitted variables on disk."""

import numpy as np

from imvad_jax.training.checkpoint import load_variables, save_variables


def test_what_a_killed_run_left_makes_way(tmp_path):
    for name in ("checkpoint", "checkpoint.orbax-checkpoint-tmp-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("half")
    save_variables(tmp_path, {"memory": {"mean": np.arange(3.0)}})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    np.testing.assert_array_equal(load_variables(tmp_path)["memory"]["mean"], np.arange(3.0))

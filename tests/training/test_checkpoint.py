"""Fitted variables on disk."""

import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.training.checkpoint import load_variables, save_variables


def test_what_a_killed_run_left_makes_way(tmp_path):
    for name in ("checkpoint.orbax-checkpoint-tmp", "checkpoint.orbax-checkpoint-tmp-7"):
        half = tmp_path / name / "ocdbt.process_0" / "d" / ("0f" * 16)
        half.parent.mkdir(parents=True)
        half.write_text("half")
        half.with_name("manifest.ocdbt.__lock").write_text("")
    save_variables(tmp_path, {"memory": {"mean": np.arange(3.0)}})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    np.testing.assert_array_equal(load_variables(tmp_path)["memory"]["mean"], np.arange(3.0))


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.orbax-checkpoint-tmp"])
def test_what_somebody_else_put_in_its_place_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "my_model.pth").write_text("mine")
    with pytest.raises(UserError, match=f"{name}: is there already .* it is left as it is"):
        save_variables(tmp_path, {"memory": {"mean": np.arange(3.0)}})
    assert [path.read_text() for path in (tmp_path / name).iterdir()] == ["mine"]
    assert [path.name for path in tmp_path.iterdir()] == [name]

"""Fitted variables on disk."""

import contextlib
import json

import ml_dtypes
import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.marks import is_ours
from imvad_jax.training import verified
from imvad_jax.training.checkpoint import TrainingCheckpoints, load_variables, save_variables


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


def stored(folder):
    """The largest file of a checkpoint."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


TREE = {
    "memory": {"bank": np.random.default_rng(0).standard_normal((64, 32)), "n": np.int32(3)},
    "params": [np.arange(5), {"half": np.arange(3).astype(ml_dtypes.bfloat16)}],
}


def test_digests_are_those_of_what_is_restored(tmp_path):
    save_variables(tmp_path, TREE)
    found = load_variables(tmp_path)
    assert verified.digests_of(found) == verified.digests_of(TREE)
    assert set(verified.digests_of(TREE)) == {
        "memory/bank", "memory/n", "params/0", "params/1/half"
    }  # fmt: skip


def test_a_checkpoint_of_before_loads(tmp_path):
    save_variables(tmp_path, TREE)
    path = tmp_path / "checkpoint" / verified.METADATA
    about = json.loads(path.read_text())
    assert about["custom_metadata"].pop("digests")
    path.write_text(json.dumps(about))
    assert verified.digests_of(load_variables(tmp_path)) == verified.digests_of(TREE)


@pytest.mark.parametrize("change, match", [
    (lambda stated: stated.update({"memory/bank": "0" * 32}), "memory/bank has the digest"),
    (lambda stated: stated.update({"memory/more": "0" * 32}), "memory/more is missing"),
    (lambda stated: stated.pop("params/0"), "params/0 was not stored there"),
])  # fmt: skip
def test_another_array_is_named(tmp_path, change, match):
    save_variables(tmp_path, TREE)
    path = tmp_path / "checkpoint" / verified.METADATA
    about = json.loads(path.read_text())
    change(about["custom_metadata"]["digests"])
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match=f"checkpoint: the checkpoint is damaged .{match}"):
        load_variables(tmp_path)


STATE = {"params": np.random.default_rng(1).standard_normal(500), "step": np.int32(0)}


def trained(tmp_path, epochs):
    with contextlib.closing(TrainingCheckpoints(tmp_path, keep=3)) as checkpoints:
        for epoch in epochs:
            checkpoints.save(epoch, STATE | {"step": np.int32(epoch)})


def test_a_damaged_newest_checkpoint_is_set_aside(tmp_path):
    trained(tmp_path, (1, 2, 3))
    for epoch in (2, 3):
        damage(stored(tmp_path / "training" / str(epoch)))
    told = []
    checkpoints = TrainingCheckpoints(tmp_path, keep=3, log=told.append)
    epoch, state = checkpoints.resume(STATE)
    assert (epoch, state["step"]) == (1, 1)
    np.testing.assert_array_equal(state["params"], STATE["params"])
    assert len(told) == 2 and all("goes on from epoch 1" in line for line in told)
    assert f"{tmp_path}/training/3: the checkpoint is damaged" in told[0]
    checkpoints.save(2, STATE | {"step": np.int32(2)})  # the training comes to its name again
    checkpoints.close()
    assert is_ours(tmp_path / "training")
    names = {path.name for path in (tmp_path / "training").iterdir()}
    assert names == {"1", "2", "2.damaged", "3.damaged"}
    damage(stored(tmp_path / "training" / "2"))
    with contextlib.closing(TrainingCheckpoints(tmp_path, log=told.append)) as checkpoints:
        assert checkpoints.resume(STATE)[0] == 1
    assert (tmp_path / "training" / "2.damaged1").is_dir()


def test_one_too_many_of_a_process_killed_after_its_last_epoch_goes(tmp_path):
    trained(tmp_path, (1, 2, 3))
    with contextlib.closing(TrainingCheckpoints(tmp_path, keep=2)) as checkpoints:
        assert checkpoints.resume(STATE)[0] == 3
    names = {path.name for path in (tmp_path / "training").iterdir()}
    assert names == {"2", "3"}


def test_a_training_whose_checkpoints_are_all_damaged_is_not_begun_anew(tmp_path):
    trained(tmp_path, (1, 2))
    for epoch in (1, 2):
        damage(stored(tmp_path / "training" / str(epoch)))
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    match = "training: all checkpoints are damaged .of epoch 2: "
    with (
        contextlib.closing(TrainingCheckpoints(tmp_path)) as checkpoints,
        pytest.raises(UserError, match=match),
    ):
        checkpoints.resume(STATE)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    with contextlib.closing(TrainingCheckpoints(tmp_path / "new")) as checkpoints:
        assert checkpoints.resume(STATE) == (0, STATE)

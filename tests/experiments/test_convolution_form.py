"""The form of convolution on record: a run goes on by the one that it began with."""

import json

import jax
import numpy as np
import pytest

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.ops import convolution_rule
from imvad_jax.runs import cells
from imvad_jax.runs.cells import Making, RunRequest
from imvad_jax.runs.specs import Options
from imvad_jax.training.limit import Limit
from imvad_jax.training.parallel import Parallel
from tests.data.trees import mvtec_tree
from tests.experiments import stopping


@pytest.fixture
def make(tmp_path):
    """Makes a run with fields; returns why it stopped."""
    data = mvtec_tree(tmp_path / "data", train=6)

    def make_run(workdir, limit=None, **fields):
        how = Making(
            parallel=Parallel(jax.local_devices()[:1]),
            limit=limit or Limit(),
            log=lambda text: None,
        )
        request = RunRequest(
            method="cfa", dataset="mvtec_ad", categories=["bottle"], workdir=tmp_path / workdir,
            preset="smoke", data_dir=str(data), weights="random",
            overrides={"epochs": "2", "layers": "layer1", **fields},
            options=Options(save_heatmaps=False),
        )  # fmt: skip
        return cells.run_cells(tmp_path / workdir, request.cells, how)[1]

    return make_run


def read_record(run):
    return sealed.read(run / "config.json")


def without_the_field(run):
    """As a record was before there was a choice."""
    record = read_record(run)
    del record["config"]["convolution"]
    (run / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_that_was_stopped_goes_on_by_its_form(make, tmp_path, monkeypatch, recorded):
    assert make("whole", convolution="xla") is None
    limit = Limit()
    with stopping.after_an_epoch(monkeypatch, limit):
        assert "after epoch 1 of 2" in str(make("run", limit, convolution="xla"))
    if not recorded:
        without_the_field(tmp_path / "run")
    with pytest.raises(UserError, match=r"convolution=auto: the run in .*run began with xla"):
        make("run", convolution="auto")
    assert make("run") is None
    assert read_record(tmp_path / "run")["config"]["convolution"] == "xla"
    with (
        np.load(tmp_path / "whole/predictions.npz") as one,
        np.load(tmp_path / "run/predictions.npz") as two,
    ):
        np.testing.assert_array_equal(one["anomaly_map"], two["anomaly_map"])
    assert make("run", convolution="auto") is None  # it is fitted: nothing is trained


def test_a_new_run_takes_the_rule(make, tmp_path):
    assert make("run") is None
    record = read_record(tmp_path / "run")
    assert record["config"]["convolution"] == "auto"
    assert record["convolution_rule"] == convolution_rule.RULE

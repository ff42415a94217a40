"""The loop of a training on record: a run goes on by the one that it began with."""

import jax
import numpy as np
import pytest

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.runs import cells, memory, plan
from imvad_jax.runs.cells import Making, RunRequest
from imvad_jax.runs.specs import Options
from imvad_jax.training.limit import Limit
from imvad_jax.training.parallel import Parallel
from tests.data.trees import mvtec_tree
from tests.experiments import stopping


@pytest.fixture
def make(tmp_path):
    """Makes a run of a loop; returns why it stopped, and what it said."""
    data = mvtec_tree(tmp_path / "data", train=6)

    def make_run(workdir, loop="auto", limit=None, dry=False, **changes):
        lines = []
        how = Making(
            parallel=Parallel(jax.local_devices()[:1]), limit=limit or Limit(), log=lines.append
        )
        given = {"method": "cfa", "overrides": {"epochs": "3", "layers": "layer1"}} | changes
        request = RunRequest(
            dataset="mvtec_ad", categories=["bottle"], workdir=tmp_path / workdir, preset="smoke",
            data_dir=str(data), weights="random",
            options=Options(save_heatmaps=False, training_loop=loop), **given,
        )  # fmt: skip
        if dry:
            for one in request.cells:
                lines.append(cells.needed_text(cells.what_is_needed(one, how)))
            return None, lines
        return cells.run_cells(tmp_path / workdir, request.cells, how)[1], lines

    return make_run


def loop_of(run):
    return sealed.read(run / "config.json")["training_loop"]


def test_a_run_that_was_stopped_goes_on_as_it_began(make, tmp_path, monkeypatch):
    assert make("whole", "device")[0] is None
    assert loop_of(tmp_path / "whole") == "device"
    limit = Limit()
    with stopping.after_an_epoch(monkeypatch, limit):
        stopped, _ = make("told", "device", limit)
    assert str(stopped) == "stopped after epoch 1 of 3; the same command goes on"
    with pytest.raises(UserError, match=r"training_loop=host: the run in .*told began with device"):
        make("told", "host")
    stopped, lines = make("told")
    assert stopped is None and "resuming after epoch 1 of 3" in lines
    assert loop_of(tmp_path / "told") == "device"
    with (
        np.load(tmp_path / "whole/predictions.npz") as one,
        np.load(tmp_path / "told/predictions.npz") as two,
    ):
        for name in ("image_score", "anomaly_map"):
            np.testing.assert_array_equal(one[name], two[name])
    assert make("told", "host")[0] is None  # it is fitted: nothing is trained


def test_on_the_cpu_it_is_the_hosts_and_so_it_was_before_there_were_two(make, tmp_path):
    make("run", dry=True)
    assert not (tmp_path / "run").exists()
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"method": "cfa", "config": {}}')
    with pytest.raises(UserError, match="training_loop=device: the run in .*run began with host"):
        make("run", "device", dry=True)


def test_images_on_the_devices_count_as_memory(make, monkeypatch):
    size = 128 * 64 * 64 * 3
    monkeypatch.setattr(memory, "gib", str)
    _, lines = make("run", "device", dry=True)
    _, without = make("run", "host", dry=True)
    with_them, plain = (int(found[-1].split("about ")[1].split()[0]) for found in (lines, without))
    assert with_them - plain == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "padim", "overrides": {}}, "training_loop=device: padim is not trained"),
        ({"checkpoint": "elsewhere"}, "training_loop: with checkpoint nothing is fitted"),
    ],
)
def test_a_loop_without_a_training_is_refused(make, changes, message):
    with pytest.raises(UserError, match=message):
        make("run", "device", **changes)


def test_a_table_gives_the_loop_to_what_is_trained(tmp_path):
    def planned(*methods):
        return plan.plan(
            plan.TableRequest(
                workdir=str(tmp_path), methods=methods, preset="smoke", dataset="mvtec_ad",
                categories=["bottle"], weights="random", options=Options(training_loop="device"),
            )
        )  # fmt: skip

    padim, stpm = planned("padim", "stpm")
    assert padim.cell.options.training_loop == "auto"
    assert stpm.cell.options.training_loop == "device"
    assert "--training_loop=device" in stpm.command and "training_loop" not in padim.command
    with pytest.raises(UserError, match="training_loop=device: none of padim, spade is trained"):
        planned("padim", "spade")

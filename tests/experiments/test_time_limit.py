"""`--time_limit` and SIGTERM as a user meets them: one line, a status, and it goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.data.trees import mvtec_tree


def start(program, tmp_path, workdir, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{program}", f"--data_dir={tmp_path / 'data'}",
         f"--workdir={tmp_path / workdir}", "--weights=random", f"--cache_dir={tmp_path / 'cache'}",
         "--num_devices=2", "--nosave_heatmaps", *arguments],
        env={**os.environ, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def data(tmp_path):
    mvtec_tree(tmp_path / "data", "bottle")
    mvtec_tree(tmp_path / "data", "screw")


@pytest.mark.parametrize("text", ["soon", "-3m"])
def test_what_is_no_time_is_refused(tmp_path, data, text):
    process = start("run", tmp_path, "run", "--method=raw_color", f"--time_limit={text}")
    error = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 2
    assert error == f"error: --time_limit={text}: expected a time such as 90s, 9m or 8h"
    assert not (tmp_path / "run").exists()


def test_nothing_is_begun_that_does_not_fit(tmp_path, data):
    process = start("run", tmp_path, "run", "--method=raw_color", "--preset=smoke",
                    "--category=all", "--time_limit=1s")  # fmt: skip
    error = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 75
    assert error == "stopped before the images of bottle, 0 s are left; the same command goes on"


@pytest.mark.slow
def test_a_table_goes_on_after_its_limit(tmp_path, data):
    given = ["--methods=raw_color,padim", "--preset=smoke", "--categories=all"]
    process = start("table", tmp_path, "table", *given, "--time_limit=6s")
    out, error = process.communicate()
    assert process.returncode == 75, error
    assert re.search(r"\d cells are not finished; the same command goes on$", error)
    assert "not begun" in out + error and (tmp_path / "table" / "table.html").is_file()
    process = start("table", tmp_path, "table", *given)
    assert process.communicate()[1].count("image AUC") >= 1 and process.returncode == 0
    cells = json.loads((tmp_path / "table" / "table.json").read_text())["cells"]
    assert [cell["state"] for cell in cells] == ["finished"] * 4


@pytest.mark.slow
def test_a_training_told_to_end_saves_itself_and_goes_on_to_the_same_bits(tmp_path, data):
    given = ["--method=cfa", "--preset=smoke", "--category=bottle", "--epochs=150"]
    whole = start("run", tmp_path, "whole", *given)
    whole.communicate()
    assert whole.returncode == 0
    told = start("run", tmp_path, "told", *given, "--checkpoint_every=1000")
    while not (tmp_path / "told" / "history.json").is_file():  # after the first epoch
        assert told.poll() is None
        time.sleep(0.02)
    told.send_signal(signal.SIGTERM)
    error = told.communicate()[1]
    assert told.returncode == 143, error
    assert re.search(r"(?m)^stopped after epoch \d+ of 150; the same command goes on$", error)
    again = start("run", tmp_path, "told", *given)
    assert re.search(r"resuming after epoch \d+ of 150", again.communicate()[1])
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in ("whole", "told")]
    assert metrics[0] == metrics[1]

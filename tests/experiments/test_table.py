"""The table as a user makes it: in process, on tiny data; and killed, in processes of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from imvad_jax import sealed
from imvad_jax.programs import program, table
from imvad_jax.reporting.grid import ERROR
from tests.data.trees import mvtec_tree


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(tmp_path):
    for category in ("bottle", "screw", "tile"):
        mvtec_tree(tmp_path / "data", category)
    return tmp_path / "data"


@pytest.fixture
def call(tmp_path, cache, data, capsys):
    """Runs the program with flags; returns exit status, all that it said, error lines."""

    def run_program(*arguments, methods="raw_color,padim", workdir="table"):
        given = ["table", f"--methods={methods}", "--preset=smoke", f"--data_dir={data}",
                 f"--workdir={tmp_path / workdir}", "--weights=random", "--noisolate",
                 f"--cache_dir={cache}", "--num_devices=2", "--nosave_heatmaps"]  # fmt: skip
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        status = 0
        try:
            program.parse([*given, *arguments])
            status = program.guard(table.main)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if "error:" in line]
        return status, captured.out + captured.err, errors + captured.err.splitlines()[-1:]

    return run_program


def cells(top):
    """State by path, as the table says."""
    found = json.loads((top / "table.json").read_text())
    return {cell["path"]: cell["state"] for cell in found["cells"]}


def made(out):
    """How many cells a call made."""
    return out.count("== ")


def test_cells_are_made_once_and_a_truncated_image_harms_its_own_only(call, tmp_path, data):
    image = data / "screw/train/good/002.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    status, out, _ = call()
    top = tmp_path / "table"
    assert status == 1 and made(out) == 6
    states = cells(top)
    assert {path for path, state in states.items() if state == "failed"} == {
        "padim/screw/smoke-seed0", "raw_color/screw/smoke-seed0",
    }  # fmt: skip
    assert sum(state == "finished" for state in states.values()) == 4
    stored = sealed.read(top / "padim/screw/smoke-seed0" / ERROR)
    assert "002.png: not a readable image" in stored["error"]
    for name in ("table.md", "table.html", "table.csv"):
        assert "002.png: not a readable image" in (top / name).read_text()
    assert "2 of 3" in (top / "table.md").read_text()
    # The finished ones are left alone; what failed is tried again.
    before = {p: p.stat().st_mtime_ns for p in top.rglob("*/bottle/*/*")}
    image.write_bytes(whole)
    status, out, _ = call()
    assert status == 0 and made(out) == 2 and "4 finished, 2 to run" in out
    assert before == {p: p.stat().st_mtime_ns for p in top.rglob("*/bottle/*/*")}
    assert set(cells(top).values()) == {"finished"} and not list(top.rglob(ERROR))
    status, out, _ = call("--weights=")  # nothing is to be made, so nothing is needed
    assert status == 0 and made(out) == 0
    record = sealed.read(top / "padim/screw/smoke-seed0/config.json")
    assert record["command"].startswith("imvad run --method=padim")
    status, _, (error, *_) = call("--sigma=7")
    assert status == 2 and "holds another run (config.sigma 4.0 there, 7.0 now)" in error


def test_two_shards_make_every_cell_exactly_once(call, tmp_path):
    results = f"--results_dir={tmp_path / 'results'}"
    first = call("--shard=1/2", "--seeds=2", results, methods="raw_color")
    half = cells(tmp_path / "table")
    second = call("--shard=2/2", "--seeds=2", results, methods="raw_color")
    assert first[0] == second[0] == 0
    assert made(first[1]) == made(second[1]) == 3
    assert sorted(half.values()) == ["finished"] * 3 + ["not finished"] * 3
    assert list(cells(tmp_path / "table").values()) == ["finished"] * 6
    rows = list(csv.DictReader((tmp_path / "table/table.csv").open()))
    assert {row["seeds"] for row in rows if row["category"] == "tile"} == {"2"}
    assert len(list((tmp_path / "results").rglob("*.json"))) == 6
    assert made(call("--seeds=2", methods="raw_color")[1]) == 0


def test_cells_in_tiles(call, tmp_path):
    tiles = ("--tile=24", "--overlap=8", "--categories=bottle")
    status, out, _ = call(*tiles, methods="raw_color")
    top = tmp_path / "table"
    assert status == 0 and "in tiles of 24 px that overlap by 8: 24 to fit on, 20 to test" in out
    record = sealed.read(top / "raw_color/bottle/smoke-seed0/config.json")
    assert (record["tile"], record["overlap"]) == (24, 8)
    assert record["command"].endswith("--tile=24 --overlap=8")
    assert "tile=24, overlap=8" in (top / "table.md").read_text()
    assert made(call(*tiles, methods="raw_color")[1]) == 0
    status, _, (error, *_) = call("--categories=bottle", methods="raw_color")
    assert status == 2 and "tile 24 there, 0 now; overlap 8 there, 0 now" in error
    before = sorted(top.rglob("*"))
    status, _, (error, *_) = call(*tiles, "--crop_size=32")
    assert status == 2 and "padim: --crop_size=32: tiles cannot be cropped" in error
    assert sorted(top.rglob("*")) == before


BAD_FLAGS = {
    "--methods=padm": "did you mean 'padim'",
    "--categories=bottel": "did you mean 'bottle'",
    "--budget=shrt": "budget",
    "--preset=smok": "--preset: unknown value 'smok'; did you mean 'smoke'",
    "--budget=short": "--budget=short: is now --preset=smoke",
    "--seeds=0": "seeds",
    "--shard=3/2": "expected i/n",
    "--workdir=": "--workdir is missing",
    "--weights=nowhere.npz": "nowhere.npz: no such file",
    "--weights=": "--weights=hub",
    "--coreset_ratio=0.1": "none of the methods padim, raw_color has this setting",
    "--sigma=big": "--sigma=big",
    "--num_processes=2": "--shard=i/n",
    "--overlap=8": "--overlap: needs --tile",
    "--data_dir=nowhere": "no such directory",
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags_are_one_clear_line(call, tmp_path, flag):
    status, _, errors = call(flag)
    assert status == 2 and BAD_FLAGS[flag] in errors[0]
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_killed_and_started_again_the_table_is_that_of_an_uninterrupted_one(tmp_path, cache, data):
    def start(name):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.table", "--methods=raw_color,padim,stpm",
             "--categories=bottle,screw", "--budget=short", f"--data_dir={data}",
             f"--workdir={tmp_path / name}", "--weights=random", f"--cache_dir={cache}",
             "--num_devices=2", "--compare"],
            env={**os.environ, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def files(name):
        texts = {p: (tmp_path / name / p).read_text() for p in ("table.md", "table.csv")}
        found = json.loads((tmp_path / name / "table.json").read_text())
        for cell in found["cells"]:
            del cell["seconds"]
        return texts | {"table.json": found}

    def finished(name):
        # Of cells alone: the checkpoints below them come and go meanwhile.
        return sorted(p.parent for p in (tmp_path / name).glob("*/*/*/metrics.json"))

    assert start("whole").communicate(timeout=900)[0].count("image AUC") == 6
    killed = start("killed")
    while len(finished("killed")) < 3:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    time.sleep(1)  # the worker ends with the process that started it
    done = {p: (p / "metrics.json").stat().st_mtime_ns for p in finished("killed")}
    time.sleep(3)
    assert 3 <= len(finished("killed")) == len(done) < 6
    output = start("killed").communicate(timeout=900)[0]
    assert output.count("image AUC") == 6 - len(done)
    assert done == {p: (p / "metrics.json").stat().st_mtime_ns for p in done}
    assert files("killed") == files("whole")

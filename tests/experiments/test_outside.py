"""The example of docs/extending.md from a package of its own: fitted, loaded, scored, exported."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from imvad_jax import api, sealed
from imvad_jax.errors import UserError
from imvad_jax.export import exporter, whole
from imvad_jax.methods import outside
from imvad_jax.programs import config_flags, program, table
from tests.data.trees import mvtec_tree

ROOT = Path(__file__).resolve().parents[2]
NAME = "their_parts.colors:Colors"
TWIN = "raw_color"  # the same method, as it stands in this project


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package, as the page shows it, and with data."""
    top = tmp_path_factory.mktemp("theirs")
    page = (ROOT / "docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(\"\"\"Raw colours.*?)```", page, re.DOTALL)
    (top / "their_parts").mkdir()
    (top / "their_parts/colors.py").write_text(code)
    mvtec_tree(top / "data")
    return top


@pytest.fixture
def importable(folder, monkeypatch):
    """The package on this process's path for the time of a test."""
    monkeypatch.setattr(outside, "_found", {})
    monkeypatch.syspath_prepend(folder)
    yield folder
    for module in [name for name in sys.modules if name.split(".")[0] == "their_parts"]:
        del sys.modules[module]


def call(folder, *arguments, there=True):
    """Runs a program in a process of its own; returns status and both outputs."""
    path = os.pathsep.join([str(ROOT), *([str(folder)] if there else [])])
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(folder):
    """A run of the example; its own field stands before the method on the command line."""
    status, _, err = call(
        folder, "experiments.run", "--cells=16", f"--method={NAME}", "--preset=smoke",
        f"--data_dir={folder / 'data'}", "--category=bottle", f"--workdir={folder / 'run'}",
        f"--cache_dir={folder / 'cache'}", "--holdout=0.3",
    )  # fmt: skip
    assert status == 0, err
    assert "== colours of theirs, mvtec_ad/bottle" in err
    return folder / "run"


def test_the_record_keeps_the_name_and_the_fields(run):
    record = sealed.read(run / "config.json")
    assert (record["method"], record["title"]) == (NAME, "colours of theirs")
    assert record["overrides"] == {"cells": "16"}
    assert (record["config"]["cells"], record["config"]["image_size"]) == (16, 64)
    assert NAME in (run / "report.html").read_text()


def test_it_scores_new_files_as_the_run_did(run, folder):
    images = folder / "data/bottle/test"
    status, _, err = call(
        folder, "experiments.predict", f"--workdir={run}", f"--input={images}",
        f"--output={folder / 'out'}", f"--cache_dir={folder / 'cache'}",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads((folder / "out/results.json").read_text())
    scores = sorted(item["raw_score"] for item in found["images"])
    expected = np.load(run / "predictions.npz", allow_pickle=False)["image_score"]
    np.testing.assert_allclose(scores, sorted(expected), rtol=1e-5)


def test_a_loaded_run_computes_what_its_twin_here_does(run, importable):
    model = api.load(run)
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    scores, maps = api.score(api.fit(api.make(NAME, image_size=64, cells=16), images), images)
    twin = api.fit(api.make(TWIN, image_size=64, grid_size=16), images)
    expected, expected_maps = api.score(twin, images)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_allclose(maps, expected_maps, rtol=1e-4, atol=1e-4)
    assert np.isfinite(api.score(model, images).image).all()


def test_it_is_exported_and_the_export_computes_the_same(run, importable, tmp_path):
    function = whole.restore(run)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    parity = exporter.export(
        function, "stablehlo", tmp_path / "d.zip", platforms=("cpu",), batch_size=0, images=images
    )
    assert (tmp_path / "d.zip").is_file() and max(parity.values()) < 1e-4


def test_a_run_whose_package_is_missing(run, folder, monkeypatch):
    monkeypatch.setattr(outside, "_found", {})
    with pytest.raises(UserError) as caught:
        api.load(run)
    assert str(caught.value).startswith(
        f"{run}/config.json: the method of the run is not there: method={NAME}: there is no module "
        "their_parts;"
    )
    given = ["experiments.predict", f"--workdir={run}", f"--input={folder}", "--output=nowhere"]
    status, _, err = call(folder, *given, there=False)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and "there is no module their_parts" in line


def test_a_table_takes_it_beside_the_methods_here(importable, tmp_path, capsys):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    given = [
        "table", "--cells=16", f"--methods={TWIN},{NAME}", "--preset=smoke", "--noisolate",
        f"--data_dir={importable / 'data'}", f"--workdir={tmp_path / 'table'}", "--num_devices=2",
        f"--cache_dir={tmp_path / 'cache'}", "--nosave_heatmaps",
    ]  # fmt: skip
    program.parse(given, config_flags.define_outside_flags)
    assert program.guard(table.main) == 0, capsys.readouterr()
    found = json.loads((tmp_path / "table/table.json").read_text())
    paths = {cell["path"] for cell in found["cells"]}
    assert paths == {
        "raw_color/bottle/smoke-seed0", "their_parts.colors_Colors/bottle/smoke-seed0"
    }  # fmt: skip
    assert "colours of theirs" in (tmp_path / "table/table.md").read_text()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--method=their_parts.colors:Colours", "has no 'Colours'; the detectors there: Colors"),
        (f"--method={NAME} --preset=cpu", "has no preset 'cpu'; Colors.presets and the defaults "
         "give: official, smoke"),
        (f"--method={NAME} --cell=16", "--cell: no flag of "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(folder, flag, expected):
    data = f"--data_dir={folder / 'data'}"
    status, _, err = call(folder, "experiments.run", *flag.split(), data, "--workdir=nowhere")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and expected in line
    assert "Traceback" not in err


def test_a_field_called_as_a_flag_of_the_program(importable, capsys):
    code = (importable / "their_parts/colors.py").read_text().replace("ridge", "weights")
    (importable / "their_parts/heavy.py").write_text(code)
    with pytest.raises(SystemExit):
        program.parse(["table", "--methods", "their_parts.heavy:Colors"],
                      config_flags.define_outside_flags)  # fmt: skip
    assert "its field 'weights' is a flag of the program already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_measures_it_beside_one_without_its_fields(folder):
    status, out, err = call(
        folder, "experiments.benchmark", f"--method={TWIN},{NAME}", "--preset=smoke", "--cells=16",
        "--num_images=6", "--repeats=1", "--seconds=0", "--fit_repeats=0",
        f"--workdir={folder / 'bench'}",
    )  # fmt: skip
    assert status == 0, out + err
    records = json.loads((folder / "bench/benchmark.json").read_text())["records"]
    assert [record["method"] for record in records] == [TWIN, NAME]
    assert (folder / "bench/their_parts.colors_Colors/benchmark.json").is_file()

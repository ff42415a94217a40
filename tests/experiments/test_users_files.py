"""Programs that are pointed at directories which hold somebody's files: those stay as they are."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from imvad_jax import marks, sealed
from imvad_jax.data.demo import write_demo_dataset
from imvad_jax.errors import UserError
from imvad_jax.export import exporter
from imvad_jax.programs import devices, program, run
from imvad_jax.runs import cell, predictor, tasks
from tests.data.trees import mvtec_tree


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def contents(top):
    return {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}


@pytest.fixture
def data(tmp_path):
    return mvtec_tree(tmp_path / "data")


@pytest.fixture
def call(tmp_path, data, capsys):
    """Runs experiments.run with the baseline; returns exit status, output, error lines."""

    def run_program(*arguments, workdir="run"):
        given = ["run", "--method=raw_color", "--preset=smoke", f"--data_dir={data}",
                 f"--workdir={tmp_path / workdir}", f"--cache_dir={tmp_path / 'cache'}",
                 "--num_devices=2"]  # fmt: skip
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        status = 0
        try:
            program.parse([*given, *arguments])
            program.guard(run.main)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error:")]
        return status, captured.out, errors

    return run_program


def as_before(top):
    """A run's directory as it was written before pictures and pages had a mark."""
    record = sealed.read(top / "config.json")
    del record["marked"]
    (top / "audit.json").unlink(missing_ok=True)  # of later versions
    write(top / "config.json", json.dumps(record))
    for path in top.rglob("*"):
        if path.suffix == ".png":
            Image.open(path).convert("RGB").save(path)
        if path.suffix == ".html":
            write(path, path.read_text().replace(f"<!-- {marks.MARK} -->\n", ""))
    assert not any(marks.MARK.encode() in text for text in contents(top).values())


def test_a_directory_of_others_is_refused_before_any_work(call, tmp_path, monkeypatch):
    for name in ("my_model.pth", "precious.txt", "checkpoint/weights.pth"):
        write(tmp_path / "theirs" / name)
    before = contents(tmp_path / "theirs")
    monkeypatch.setattr(devices, "start_jax", lambda: pytest.fail("JAX was started"))
    status, out, (error,) = call(workdir="theirs")
    assert status == 2 and not out
    assert "holds other files (checkpoint, my_model.pth, precious.txt); expected a new or" in error
    assert contents(tmp_path / "theirs") == before and not (tmp_path / "cache").exists()
    write(tmp_path / "project" / "config.json", '{"model_type": "vit"}')
    status, _, (error,) = call(workdir="project")
    assert status == 2 and "config.json: not a run's record (no field 'method')" in error


@pytest.mark.parametrize("earlier", [False, True], ids=["marked", "before"])
def test_files_beside_a_run_stay_and_the_run_is_resumed(call, tmp_path, earlier):
    assert call()[0] == 0
    top = tmp_path / "run"
    if earlier:
        as_before(top)
    theirs = [write(top / name) for name in ("precious.txt", "my_model.pth", "heatmaps/mine.png",
                                             "mine/checkpoint/w.pth")]  # fmt: skip
    (top / "metrics.json").unlink()
    status, out, _ = call()
    assert status == 0 and "not fitting again" in out and (top / "metrics.json").is_file()
    assert {path.read_text() for path in theirs} == {"mine"}


def test_a_users_folder_in_the_place_of_ours_is_refused_by_name(call, tmp_path, monkeypatch):
    assert call()[0] == 0
    top = tmp_path / "run"
    (top / "checkpoint").rename(tmp_path / "moved")
    write(top / "checkpoint" / "my_model.pth")
    with monkeypatch.context() as patch:
        patch.setattr(devices, "start_jax", lambda: pytest.fail("JAX was started"))
        status, _, (error,) = call()
    assert status == 2 and f"{top / 'checkpoint'}: is there already and was not written" in error
    assert (top / "checkpoint" / "my_model.pth").read_text() == "mine"
    (top / "checkpoint" / "my_model.pth").unlink()
    (top / "checkpoint").rmdir()
    (tmp_path / "moved").rename(top / "checkpoint")
    first = next((top / "heatmaps").glob("*.png"))
    Image.new("RGB", (5, 5)).save(first)  # a picture of the same name
    before = contents(top)
    status, _, (error,) = call()
    assert status == 2 and f"{first}: is there already" in error and contents(top) == before
    assert call("--nosave_heatmaps")[0] == 0


def test_of_several_categories_every_directory_is_looked_at_first(call, tmp_path, data):
    write(tmp_path / "run" / "screw" / "photo.jpg")
    assert call(workdir="run/bottle")[0] == 0
    mvtec_tree(data, "screw")
    (tmp_path / "run" / "bottle" / "metrics.json").unlink()
    before = contents(tmp_path / "run")
    status, out, (error,) = call("--category=all")
    assert status == 2 and "run/screw: holds other files (photo.jpg)" in error and not out
    assert contents(tmp_path / "run") == before
    write(tmp_path / "other" / "index.html", "<html>my homepage</html>")
    status, _, (error,) = call("--category=all", workdir="other")
    assert status == 2 and "other: holds other files (index.html)" in error
    assert list(contents(tmp_path / "other")) == ["index.html"]


def test_a_result_file_of_somebody_else_is_refused_before_any_work(call, tmp_path):
    assert call(f"--results_dir={tmp_path / 'results'}")[0] == 0
    (path,) = (tmp_path / "results").rglob("*.json")
    assert marks.is_result(path) and call(f"--results_dir={tmp_path / 'results'}")[0] == 0
    write(path, '{"mine": 1}')
    status, out, (error,) = call(f"--results_dir={tmp_path / 'results'}", workdir="second")
    assert status == 2 and f"--results_dir: {path}: is there already" in error and not out
    assert path.read_text() == '{"mine": 1}' and not (tmp_path / "second").exists()


@pytest.mark.parametrize("last", ["write_report", "write_result"])
def test_a_run_that_ends_before_report_and_result_is_not_finished(
    call, tmp_path, monkeypatch, last
):
    def killed(*args):
        raise KeyboardInterrupt

    place = cell.report if last == "write_report" else cell
    with monkeypatch.context() as patch:
        patch.setattr(place, last, killed)
        with pytest.raises(KeyboardInterrupt):
            call(f"--results_dir={tmp_path / 'results'}")
    assert (tmp_path / "run/predictions.npz").is_file()
    assert not (tmp_path / "run/metrics.json").exists()
    assert call(f"--results_dir={tmp_path / 'results'}")[0] == 0
    assert (tmp_path / "run/metrics.json").is_file() and (tmp_path / "run/report.html").is_file()
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1


def test_a_finished_cell_gets_the_report_and_the_result_that_it_lacks(call, tmp_path):
    task = tasks.Task(
        method="raw_color", preset="smoke", overrides={}, category="bottle", seed=0,
        dataset="mvtec_ad", data_dir="DATA", weights=None, workdir=str(tmp_path), decoded_dir=None,
        results_dir=str(tmp_path / "results"), options={},
    )  # fmt: skip
    assert not task.finished
    assert call(workdir=task.path)[0] == 0
    (task.run_dir / "report.html").unlink()  # killed between the two, before the order was turned
    assert task.finished and not task.result_file.exists()
    tasks.complete(task)
    assert "<html" in (task.run_dir / "report.html").read_text()
    stored = sealed.read(task.result_file)
    assert stored["metrics"] == sealed.read(task.run_dir / "metrics.json")
    assert stored["timings"]["fit"]["wall_s"] > 0 and "train_files" not in stored
    before = contents(tmp_path)
    tasks.complete(task)
    tasks.check_files(task)
    assert contents(tmp_path) == before
    write(task.run_dir / "metrics.json", '{"accuracy": 1}')  # somebody else's
    assert not task.finished
    with pytest.raises(UserError, match=r"metrics\.json: is there already"):
        tasks.check_files(task)


@pytest.mark.parametrize("text", ["{}", '{"accuracy": 0.9}', "[]", '{"finished": true}'])
def test_results_of_another_program_are_no_earlier_prediction(tmp_path, text):
    write(tmp_path / "out" / "results.json", text)
    write(tmp_path / "out" / "heatmaps" / "000.jpg")
    before = contents(tmp_path)
    for check in (predictor.check_output, predictor.prepare_output):
        with pytest.raises(UserError, match=r"output=.*out: holds other files .heatmaps, res"):
            check(tmp_path / "out")
    assert contents(tmp_path) == before


def test_a_prediction_removes_its_own_earlier_files_alone(tmp_path):
    out = tmp_path / "out"
    predictor.prepare_output(out)
    assert marks.is_ours(out / "results.json")  # a killed one is known again
    (out / "heatmaps").mkdir()
    Image.new("RGB", (5, 5)).save(out / "heatmaps" / "old.jpg", comment=marks.MARK)
    for name in ("precious.txt", "heatmaps/holiday.jpg", "heatmaps/notes.txt"):
        write(out / name)
    with pytest.raises(UserError, match=r"output: .*holiday\.jpg: is there already"):
        predictor.check_output(out, ["line/a.png", "holiday.png"])
    predictor.prepare_output(out, ["line/a.png"])
    assert set(contents(out)) == {"results.json", "precious.txt", "heatmaps/holiday.jpg",
                                  "heatmaps/notes.txt"}  # fmt: skip
    write(out / "index.html", "<html>my homepage</html>")
    with pytest.raises(UserError, match=r"output: .*index\.html: is there already"):
        predictor.prepare_output(out)


def test_heat_maps_of_an_earlier_version_are_known_by_the_list_of_results(tmp_path):
    about = {"finished": True, "workdir": "run", "method": "padim"}
    images = [{"file": "a.png", "heatmap": "heatmaps/a.jpg"}, {"file": "b.png", "heatmap": None}]
    write(tmp_path / "results.json", json.dumps(about | {"images": images}))
    for name in ("a.jpg", "holiday.jpg"):
        write(tmp_path / "heatmaps" / name)
    predictor.prepare_output(tmp_path, ["a.png", "b.png"])
    assert set(contents(tmp_path)) == {"results.json", "heatmaps/holiday.jpg"}


def test_the_program_refuses_a_folder_of_others_and_expands_the_tilde(call, tmp_path):
    call("--holdout=0.5")
    write(tmp_path / "out" / "results.json", "{}")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.predict", "--workdir=~/run", "--cache_dir=",
         "--input=~/data/bottle/test/good", "--output=~/out"],
        env=os.environ | {"PYTHONPATH": os.getcwd(), "HOME": str(tmp_path)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    (error,) = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout and not (tmp_path / "~").exists()
    assert error.startswith(f"error: --output={tmp_path}/out: holds other files (results.json)")


@pytest.mark.parametrize("program_name", ["results", "benchmark"])
def test_a_page_of_somebody_else_is_not_replaced(tmp_path, program_name):
    page = write(tmp_path / "README.md", "# My project\n")
    render = ["--render", "--benchmarks_dir=benchmarks"] if program_name == "benchmark" else []
    command = [sys.executable, "-m", f"experiments.{program_name}", *render, f"--out={page}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and page.read_text() == "# My project\n"
    assert "README.md: is there already and was not written by this program" in done.stderr


def test_only_an_export_of_ours_is_overwritten(tmp_path):
    theirs = write(tmp_path / "weights.onnx", "mine" * 100)
    folder = tmp_path / "saved"
    write(folder / "saved_model.pb", "of another program")
    for path, kind in ((theirs, "onnx"), (theirs, "stablehlo"), (folder, "savedmodel")):
        with pytest.raises(UserError, match="no earlier export of"):
            exporter.check_output(path, kind, True)
    write(folder / "assets.extra" / "metadata.json", '{"format": "imvad_jax export"}')
    exporter.check_output(folder, "savedmodel", True)
    write(folder / "my_model.pth")
    with pytest.raises(UserError, match="or holds more; it is left as it is"):
        exporter.check_output(folder, "savedmodel", True)


def test_an_export_that_was_set_aside_by_a_killed_process_comes_back(tmp_path):
    aside = tmp_path / ".saved.imvad_jax.old"
    write(aside / "saved_model.pb")
    with pytest.raises(UserError, match="is there already; add overwrite"):
        exporter.check_output(tmp_path / "saved", "savedmodel", False)
    assert (tmp_path / "saved" / "saved_model.pb").read_text() == "mine"


def test_drawn_data_are_not_mixed_with_somebody_elses(tmp_path):
    small = {"size": 32, "train": 1, "test_good": 1, "test_per_defect": 1, "progress": False}
    write(tmp_path / "theirs" / "demo.json", '{"dataset": "ImageNet"}')
    with pytest.raises(UserError, match="demo.json' is of another program"):
        write_demo_dataset(tmp_path / "theirs", ["fabric"], **small)
    out = write_demo_dataset(tmp_path / "demo", ["fabric"], **small)
    write(out / "license.txt", "all rights are mine")
    np.testing.assert_equal(write_demo_dataset(out, ["fabric"], **small), out)
    assert (out / "license.txt").read_text() == "all rights are mine"
    for path in (out / "fabric").rglob("*.png"):
        path.unlink()
    write(out / "fabric" / "photo.jpg")
    with pytest.raises(UserError, match="fabric' is there and no whole category"):
        write_demo_dataset(out, ["fabric"], **small)
    assert (out / "fabric" / "photo.jpg").read_text() == "mine"

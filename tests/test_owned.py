"""Somebody's files in a directory of ours, or ours in somebody's: nothing of theirs is touched."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from imvad_jax import files, marks, owned
from imvad_jax.errors import UserError
from imvad_jax.reporting import pages

RECORD = {"method": "padim", "title": "PaDiM", "config": {"backbone": "resnet18"}}
STEP = ("_CHECKPOINT_METADATA", "default/_METADATA", "default/d/" + "0a" * 16)


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def contents(top):
    return {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def run_of_before(top):
    """A finished run as it was written before there was a mark."""
    write(top / "config.json", RECORD)
    write(top / "metrics.json", {"image_auroc": 0.9, "pixel_auroc": None})
    write(top / "timings.json", {"fit": {"wall_s": 1.0}})
    write(top / "history.json", [{"epoch": 1, "loss": 0.5}])
    write(top / "calibration.json", {"image": {}, "pixel": None, "quantile": 0.95, "scores": []})
    style = pages._asset("style.css")
    write(top / "report.html", f"<!DOCTYPE html>\n<title>PaDiM</title>\n<style>\n{style}</style>")
    np.savez(top / "predictions.npz", path=["a"], label=[0], defect=["good"], image_score=[0.1])
    Figure().savefig(top / "learning_curve.png")
    for name in STEP:
        write(top / "training" / "4" / name)
    write(top / "checkpoint" / "_CHECKPOINT_METADATA")
    (top / "heatmaps").mkdir()
    Image.new("RGB", (4, 4)).save(top / "heatmaps" / "a.png")
    return top


@pytest.mark.parametrize("kind", [owned.RUN, owned.CATEGORIES, owned.TABLE, owned.PREDICTION,
                                  owned.BENCHMARK], ids=lambda kind: kind.what)  # fmt: skip
def test_other_files_are_refused_in_one_line_that_names_them(tmp_path, kind):
    owned.check_directory(tmp_path / "new" / "one", kind)
    owned.check_directory(tmp_path, kind)
    write(tmp_path / ".DS_Store")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    write(files.temporary_path(tmp_path / "begun" / "config.json"))
    owned.check_directory(tmp_path, kind)
    for name in ("my_model.pth", "precious.txt", "checkpoint/w.pt", "heatmaps/mine.png"):
        write(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(UserError) as error:
        owned.check_directory(tmp_path, kind, "--out")
    said = str(error.value)
    assert f"out={tmp_path}: holds other files (checkpoint, heatmaps, my_model.pth, ...)" in said
    assert kind.what in said and "\n" not in said and contents(tmp_path) == before
    with pytest.raises(UserError, match=r"precious.txt is a file; expected a directory"):
        owned.check_directory(tmp_path / "precious.txt" / "below", kind)


@pytest.mark.parametrize("name", ["results.json", "config.json", "index.html", "table.json",
                                  "benchmark.json", "error.json", "scaling.json"])  # fmt: skip
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"accuracy": 0.9}', "<html>", "{" * 9999])
def test_somebody_elses_file_of_the_same_name_proves_nothing(tmp_path, name, text):
    write(tmp_path / name, text)
    assert not marks.is_ours(tmp_path / name)
    for kind in (owned.RUN, owned.CATEGORIES, owned.TABLE, owned.PREDICTION, owned.BENCHMARK):
        with pytest.raises(UserError, match=f"holds other files .{name}"):
            owned.check_directory(tmp_path, kind)


def test_a_run_of_before_is_known_and_its_files_are_replaced(tmp_path):
    run_of_before(tmp_path)
    owned.check_directory(tmp_path, owned.RUN)
    for name in owned.RUN.names:
        assert marks.is_ours(tmp_path / name) == (name not in ("error.json", "audit.json"))
    assert [path.name for path in marks.own_heatmaps(tmp_path / "heatmaps")] == ["a.png"]
    owned.write_own(tmp_path / "metrics.json", lambda file: file.write(b"{}"))
    write(tmp_path / "precious.txt")  # beside it: no hindrance
    write(tmp_path / "heatmaps" / "mine.txt")
    with pytest.raises(UserError, match="metrics.json: is there already and was not written by"):
        owned.check_directory(tmp_path, owned.RUN)


@pytest.mark.parametrize("name", [n for n in owned.RUN.names if n != "config.json"])
def test_a_users_file_under_a_name_of_ours_is_refused_by_name(tmp_path, name):
    write(tmp_path / "config.json", RECORD)
    path = tmp_path / name
    path = write(path if path.suffix else path / "my_model.pth")
    with pytest.raises(UserError, match=f"workdir: {tmp_path / name}: is there already"):
        owned.check_directory(tmp_path, owned.RUN)
    with pytest.raises(UserError, match="left as it is"):
        owned.write_own(tmp_path / name, lambda file: file.write(b"ours"))
    assert path.read_text() == "mine"


def test_a_file_of_a_user_among_the_steps_of_a_training_is_seen(tmp_path):
    run_of_before(tmp_path)
    write(tmp_path / "training" / "notes.txt")  # orbax does not look at it
    owned.check_directory(tmp_path, owned.RUN)
    write(tmp_path / "training" / "4" / "my_model.pth")  # with the step it would be deleted
    with pytest.raises(UserError, match="training: is there already"):
        owned.check_directory(tmp_path, owned.RUN)


def test_a_checkpoint_is_removed_without_what_others_put_there(tmp_path):
    for name in (*STEP, "default/manifest.ocdbt", "array_metadatas/process_0"):
        write(tmp_path / "checkpoint" / name)
        write(tmp_path / "alone" / name)
    write(tmp_path / "checkpoint" / "default" / "mine.txt")
    owned.remove_checkpoint(tmp_path / "checkpoint")
    owned.remove_checkpoint(tmp_path / "alone")
    assert list(contents(tmp_path)) == ["checkpoint/default/mine.txt"]
    assert not (tmp_path / "alone").exists()


def test_pictures_of_a_run_that_marks_them_are_told_by_the_mark(tmp_path):
    write(tmp_path / "config.json", RECORD | {"marked": True})
    (tmp_path / "heatmaps").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "heatmaps" / "holiday.png")
    assert not marks.own_heatmaps(tmp_path / "heatmaps")
    Image.new("RGB", (4, 4)).save(tmp_path / "heatmaps" / "ours.jpg", comment=marks.MARK)
    assert [path.name for path in marks.own_heatmaps(tmp_path / "heatmaps")] == ["ours.jpg"]


def test_a_directory_of_tables_and_runs_may_take_another_run(tmp_path):
    for name in ("bottle", "table/padim/screw/cpu-seed0"):
        run_of_before(tmp_path / name)
    write(tmp_path / "logs" / "shard1of2-worker0.log")
    for kind in (owned.RUN, owned.CATEGORIES, owned.TABLE, owned.BENCHMARK):
        owned.check_directory(tmp_path, kind)
    with pytest.raises(UserError, match="holds other files"):
        owned.check_directory(tmp_path, owned.PREDICTION)
    run_of_before(tmp_path / "run")
    with pytest.raises(UserError, match="holds other files"):  # of which it would replace some
        owned.check_directory(tmp_path / "run", owned.PREDICTION)

"""Prediction as a user meets it: fit on a folder of good parts, then judge new files."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from imvad_jax import methods, presets, sealed
from imvad_jax.data.inputs import find_images
from imvad_jax.errors import UserError
from imvad_jax.evaluation import read_calibration
from imvad_jax.methods.base import Prediction
from imvad_jax.model import load, store
from imvad_jax.runs import cell, predictor
from imvad_jax.runs.specs import Cell, Options, Work
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import COMPILES
from tests.data.odd_files import SIZE, picture, write_bad, write_good

SPOT = (30, 10, 40, 18)  # left, top, right, bottom: where defects lie


def defective(seed: int) -> Image.Image:
    image = picture(seed)
    image.paste((250, 20, 20), SPOT)
    return image


def fit(parts: Path, run_dir: Path, **changes) -> tuple[dict, list[str]]:
    """A run of the raw-colour baseline on a folder; its result and what it said."""
    config = presets.resolve("raw_color", "smoke", {"batch_size": "8"})
    asked = Cell(
        method="raw_color", preset="smoke", overrides={}, config=config, dataset="folder",
        data_dir=str(parts), category=parts.name, run_dir=run_dir, holdout=0.25,
        options=Options(save_predictions=False, save_heatmaps=False, **changes),
    )  # fmt: skip
    said = []
    work = Work(parallel=Parallel(jax.devices()[:2]), log=said.append)
    return cell.run_cell(asked, work), said


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("predict")
    (top / "parts").mkdir()
    for seed in range(100, 132):
        picture(seed).save(top / "parts" / f"{seed}.png")
    fit(top / "parts", top / "run")
    return top / "run"


@pytest.fixture
def predict(run_dir, tmp_path):
    def call(*inputs, output="out", edit=lambda model: model, **options):
        model = edit(load(run_dir, Parallel(jax.devices()[:2])))
        drawn = tmp_path / output / "heatmaps"
        listing = find_images([str(path) for path in inputs], leave_out=drawn)
        options = predictor.Options(**options)
        return predictor.predict(
            model, listing.images, tmp_path / output, options, not_used=listing.not_used
        )

    return call


def read_results(output: Path) -> tuple[dict, list[dict], str]:
    with open(output / "results.csv", encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    return json.loads((output / "results.json").read_text()), lines, (
        output / "index.html"
    ).read_text()  # fmt: skip


def test_a_folder_of_good_images_gives_a_threshold(run_dir):
    found = read_calibration(run_dir)
    record = sealed.read(run_dir / "config.json")
    assert len(found.scores) == len(found.files) == 8 and found.flagged == 0
    assert record["holdout"] == 0.25 and len(record["train_files"]) == 24
    assert not set(found.files) & set(record["train_files"])
    assert len(set(found.files) | set(record["train_files"])) == 32


def test_labelled_test_images_give_f1_and_another_quantile_another_threshold(tmp_path):
    for seed in range(16):
        for folder, draw in (
            ("train/good", picture),
            ("test/good", picture),
            ("test/red", defective),
        ):
            path = tmp_path / "parts" / folder / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(seed + 1000 * len(folder)).save(path)
    result, said = fit(tmp_path / "parts", tmp_path / "run", threshold_quantile=1.0)
    assert result["metrics"]["image_f1_max"] == 1 and 0.8 < result["metrics"]["image_f1"] <= 1
    assert any("of 16 good test images flagged, 16 of 16 defective ones found" in s for s in said)
    high = read_calibration(tmp_path / "run").image.threshold
    fit(tmp_path / "parts", tmp_path / "run", threshold_quantile=0.6)  # not fitted again
    assert read_calibration(tmp_path / "run").image.threshold < high


def test_every_good_file_is_scored_and_every_bad_one_named(predict, tmp_path):
    good = write_good(tmp_path / "mix" / "good")
    reasons = write_bad(tmp_path / "mix" / "bad")
    defective(1).save(tmp_path / "mix" / "good" / "defect.png")
    found = predict(tmp_path / "mix")
    results, lines, page = read_results(tmp_path / "out")
    names = {f"good/{name}" for name in [*good, "defect.png"]}
    assert {image["file"] for image in results["images"]} == names
    assert {item["file"] for item in results["unreadable"]} == {f"bad/{name}" for name in reasons}
    for item in results["unreadable"]:
        assert reasons[item["file"].removeprefix("bad/")] in item["error"]
        assert item["file"] in page and str(tmp_path) not in item["error"]
    assert results["finished"] and results["counts"]["unreadable"] == len(reasons)
    assert results["images"][0]["file"] == "good/defect.png"
    assert len(lines) == len(names) + len(reasons)
    assert [line["verdict"] for line in lines[-len(reasons) :]] == ["unreadable"] * len(reasons)
    assert all(line["score"] == "" and line["error"] for line in lines[-len(reasons) :])
    assert "good/50% [new] &amp; &#39;best&#39; &lt;b&gt;.png" in page and "Gehäuse 部品" in page
    assert found.worst_first[-1].num_regions == 0
    for image in results["images"]:
        assert (tmp_path / "out" / image["heatmap"]).is_file()
        assert 0 < image["score"] < 1
    rotated = next(image for image in results["images"] if "rotated" in image["file"])
    assert (rotated["width"], rotated["height"]) == SIZE[::-1]


def test_defects_rank_first_with_region_and_box(predict, tmp_path):
    for seed in range(6):
        picture(seed).save(tmp_path / f"good{seed}.png")
        defective(seed).resize((480, 400)).save(tmp_path / f"red{seed}.png")
    predict(tmp_path)
    results, lines, page = read_results(tmp_path / "out")
    assert [image["file"][:3] for image in results["images"][:6]] == ["red"] * 6
    scores = [image["score"] for image in results["images"]]
    assert scores == sorted(scores, reverse=True)
    for image in results["images"]:
        assert image["verdict"] == ("defective" if image["score"] > 0.5 else "good")
    worst = results["images"][0]
    assert worst["verdict"] == "defective" and worst["score"] > 0.9
    assert np.abs(np.array(worst["regions"][0]["box"]) - 10 * np.array(SPOT)).max() < 40
    assert [int(lines[0][key]) for key in ("left", "top", "right", "bottom")] == (
        worst["regions"][0]["box"]
    )
    with Image.open(tmp_path / "out" / worst["heatmap"]) as heatmap:
        assert heatmap.size == (480, 400)
    assert page.index("red") < page.index("good0.png")
    assert page.count("data:image/jpeg;base64,") == 24
    # Nothing is fetched: no address but links to the heat maps beside the page.
    assert not re.findall(r'(?:src|href)="(?!data:|heatmaps/|#)', page)
    embedded = json.loads(re.search(r"const data = (.*);", page)[1])
    assert embedded["scores"] == scores and len(embedded["references"]) == 8
    assert sum(score > 0.5 for score in embedded["references"]) == 0


def test_scores_do_not_depend_on_the_batch_and_one_program_scores_all(predict, tmp_path):
    for seed in range(11):
        path = tmp_path / "parts" / f"{seed:02}.png"
        path.parent.mkdir(exist_ok=True)
        picture(seed).save(path)
    predict(tmp_path / "parts")
    before = COMPILES.programs
    whole = predict(tmp_path / "parts")
    assert COMPILES.programs == before
    single = predict(tmp_path / "parts", batch_size=2)
    assert len(whole.images) == len(single.images) == 11
    for one, two in zip(whole.images, single.images):
        assert one.file == two.file and one.raw_score == pytest.approx(two.raw_score, rel=1e-5)


def test_held_out_images_get_the_scores_of_the_calibration(predict, run_dir):
    files = read_calibration(run_dir)
    paths = [run_dir.parent / "parts" / name for name in files.files]
    found = predict(*paths)
    assert [image.raw_score for image in found.images] == pytest.approx(files.scores, rel=1e-5)
    assert found.defective == files.flagged


def test_an_image_only_method_has_no_heat_map(predict, tmp_path):
    class ImageOnly(methods.get("raw_color").detector):
        def __call__(self, images):
            return Prediction(super().__call__(images).score, None)

    def edit(model):
        return dataclasses.replace(model, detector=ImageOnly(model.config))

    defective(0).save(tmp_path / "a.png")
    predict(tmp_path / "a.png", edit=edit)
    results, lines, page = read_results(tmp_path / "out")
    assert results["images"][0]["regions"] is None and results["images"][0]["heatmap"] is None
    assert lines[0]["regions"] == lines[0]["left"] == lines[0]["heatmap"] == ""
    assert page.count("data:image/jpeg;base64,") == 1
    assert not (tmp_path / "out" / "heatmaps").exists()


def test_the_page_shows_the_worst_and_counts_all(predict, tmp_path):
    for seed in range(5):
        (defective if seed == 3 else picture)(seed).save(tmp_path / f"{seed}.png")
    predict(tmp_path, page_images=2, threshold=0.97)
    results, _, page = read_results(tmp_path / "out")
    assert page.count("<figure") == 2 and "3 more with lower scores" in page
    assert len(json.loads(re.search(r"const data = (.*);", page)[1])["scores"]) == 5
    assert results["threshold"] == 0.97
    predict(tmp_path, page_images=0)  # an earlier result is replaced
    assert read_results(tmp_path / "out")[2].count("<figure") == 0


def test_on_bad_image_error_stops_and_keeps_what_was_scored(predict, tmp_path):
    for seed in range(60):
        picture(seed).save(tmp_path / f"{seed:02}.png")
    (tmp_path / "50.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"^50\.png: not a readable image"):
        predict(tmp_path, on_bad_image="error")
    results, lines, page = read_results(tmp_path / "out")
    assert not results["finished"] and "Stopped before" in page
    assert 0 < len(results["images"]) <= 59
    assert lines[-1]["file"] == "50.png" and lines[-1]["verdict"] == "unreadable"


def test_a_score_that_is_no_number_is_not_a_verdict(predict, tmp_path):
    def edit(model):
        memory = model.variables["memory"]
        memory = memory | {"mean": np.full_like(memory["mean"], np.nan)}
        return dataclasses.replace(model, variables={"memory": memory})

    picture().save(tmp_path / "a.png")
    found = predict(tmp_path, edit=edit)
    assert not found.images and "not a number" in found.unreadable[0][1]
    assert "<figure" not in read_results(tmp_path / "out")[2]


def test_good_images_recalibrate(run_dir, tmp_path):
    model = load(run_dir, Parallel(jax.devices()[:2]))
    for seed in range(9):
        picture(seed).save(tmp_path / f"{seed}.png")
    paths = find_images([str(tmp_path)]).images
    found = predictor.calibrate_from(model, paths, 1.0).calibration
    assert len(found.scores) == 9 and found.flagged == 0 and found.files[0] == "0.png"
    assert found.pixel.threshold > found.pixel.typical
    (tmp_path / "5.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"good: 5\.png: not a readable image"):
        predictor.calibrate_from(model, paths, 1.0)


def test_runs_and_outputs_that_do_not_serve(run_dir, tmp_path):
    with pytest.raises(UserError, match="no model there"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"^workdir=nowhere: no model there"):
        store.read("nowhere", "--workdir=nowhere")
    with pytest.raises(UserError, match="several categories; name the directory of one: run"):
        load(run_dir.parent)
    (tmp_path / "config.json").write_bytes((run_dir / "config.json").read_bytes())
    with pytest.raises(UserError, match="not finished"):
        load(tmp_path)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="holds other files"):
        predictor.prepare_output(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        predictor.prepare_output(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_the_program_needs_no_tensorflow_and_its_status_tells(run_dir, tmp_path):
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "tensorflow.py").write_text("raise ImportError('not here')")
    (tmp_path / "parts").mkdir()
    picture(0).save(tmp_path / "parts" / "a.png")
    (tmp_path / "parts" / "b.png").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.predict", f"--workdir={run_dir}", "--cache_dir=",
         f"--input={tmp_path / 'parts'}", f"--output={tmp_path / 'out'}"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'no'}{os.pathsep}{Path.cwd()}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "not scored: b.png: not a readable image" in done.stderr
    assert "1 images scored: " in done.stdout and "Warning" not in done.stderr
    assert len(read_results(tmp_path / "out")[0]["images"]) == 1


def test_pictures_under_another_light_are_warned_of(predict, tmp_path):
    for place, factor in (("usual", 1.0), ("dark", 0.5)):
        (tmp_path / place).mkdir()
        for seed in range(300, 310):
            image = picture(seed).point(lambda value, factor=factor: int(value * factor))
            image.save(tmp_path / place / f"{seed}.png")
    predict(tmp_path / "usual", output="one")
    about, _, page = read_results(tmp_path / "one")
    assert about["outside_training_range"] is None
    assert "outside the good images" not in page
    found = predict(tmp_path / "dark", output="two")
    about, _, page = read_results(tmp_path / "two")
    assert about["outside_training_range"]["outside"] == 10
    assert found.notes[0].startswith("WARNING: 10 of 10 new images lie outside")
    assert found.notes[0] in about["notes"] and "10 of 10 new images lie outside" in page


def test_python_names_what_lies_outside(run_dir):
    model = load(run_dir, Parallel(jax.devices()[:2]))
    assert model.ranges.count == 32
    usual, dark = picture(301), picture(301).point(lambda value: value // 3)
    assert "mean grey" not in model.predict(usual).outside
    assert "mean grey" in model.predict(dark).outside
    older = dataclasses.replace(model, ranges=None)
    assert older.predict(dark).outside == ()

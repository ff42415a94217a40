"""Few good images, equal ones, and what is promised of them: from the folder to the verdicts."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from imvad_jax import api, presets
from imvad_jax.data.inputs import find_images
from imvad_jax.evaluation import read_calibration
from imvad_jax.model import load
from imvad_jax.runs import cell, predictor
from imvad_jax.runs.specs import Cell, Options, Work
from imvad_jax.training import checkpoint
from imvad_jax.training.parallel import Parallel

SIDE = 64


def part(seed: int) -> np.ndarray:
    """A good part: a grey plate with noise of its own."""
    return np.random.default_rng(seed).normal(120, 6, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)


def with_hole(array: np.ndarray, side: int, depth: int) -> np.ndarray:
    found = array.copy()
    found[20 : 20 + side, 20 : 20 + side] = np.maximum(found[20, 20].astype(int) - depth, 0)
    return found


def write(folder: Path, pictures: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, array in pictures.items():
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


def fit(parts: Path, run_dir: Path, may_fold=True, **options) -> list[str]:
    """What a run of the raw-colour baseline on a folder says."""
    said: list[str] = []
    asked = Cell(
        method="raw_color", preset="smoke", overrides={},
        config=presets.resolve("raw_color", "smoke", {"batch_size": "4"}), dataset="folder",
        data_dir=str(parts), category=parts.name, run_dir=run_dir, holdout=0.2, may_fold=may_fold,
        options=Options(save_predictions=False, save_heatmaps=False, **options),
    )  # fmt: skip
    cell.run_cell(asked, Work(parallel=Parallel(jax.devices()[:1]), log=said.append))
    return said


def predict(run_dir: Path, new: Path, output: Path) -> tuple[dict[str, dict], dict, str]:
    """Lines of results.csv by name, results.json, and the page; with another batch size."""
    model = load(run_dir, Parallel(jax.devices()[:1]))
    listing = find_images([str(new)])
    predictor.predict(model, listing.images, output, predictor.Options(batch_size=3))
    with open(output / "results.csv", encoding="utf-8-sig", newline="") as file:
        lines = {line["file"]: line for line in csv.DictReader(file)}
    found = json.loads((output / "results.json").read_text())
    return lines, found, (output / "index.html").read_text()


def test_a_part_equal_to_all_good_parts_is_good(tmp_path):
    good = part(0)
    parts = write(tmp_path / "parts", {f"{i:02}": good for i in range(20)})
    new = {"same": good, "small": with_hole(good, 4, 15), "large": with_hole(good, 30, 90)}
    said = fit(parts, tmp_path / "run")
    warning = next(line for line in said if "all 20 images" in line)
    assert warning.startswith("note: ") and "equal (copies?)" in warning
    assert any("it flags 0 of them" in line for line in said)
    lines, found, page = predict(tmp_path / "run", write(tmp_path / "new", new), tmp_path / "out")
    same, small, large = (lines[f"{name}.png"] for name in new)
    assert (same["verdict"], same["score"], same["regions"]) == ("good", "0.250000", "0")
    assert small["verdict"] == large["verdict"] == "defective"
    assert 0.5 < float(small["score"]) < float(large["score"]) < 1
    assert found["counts"]["good"] == 1 and "copies?" in found["notes"][0] and "copies?" in page
    # Nothing of the equal part is bright: its map lies at a quarter, where colours begin.
    model = load(tmp_path / "run")
    heat = model.calibration.pixel.normalize(model.predict(good).anomaly_map)
    assert heat.max() <= 0.25 + 1e-6


def test_six_good_parts_give_a_scale_and_say_what_they_cannot_promise(tmp_path):
    parts = write(tmp_path / "parts", {f"{i}": part(i) for i in range(6)})
    new = {f"good{i:02}": part(100 + i) for i in range(12)}
    new |= {f"bad{i}": with_hole(part(200 + i), 16, 110) for i in range(3)}
    said = fit(parts, tmp_path / "run")
    assert any("6 good images to fit on and to set the threshold by 6 folds" in s for s in said)
    line = "no rate of 5 % can be promised from 6 images; 19 would do"
    assert any(line in s for s in said)
    lines, found, page = predict(tmp_path / "run", write(tmp_path / "new", new), tmp_path / "out")
    scores = {name: float(row["score"]) for name, row in lines.items()}
    good = [score for name, score in scores.items() if name.startswith("good")]
    bad = [score for name, score in scores.items() if name.startswith("bad")]
    assert min(good) > 0.05 and max(good) < 0.85 and min(bad) > 0.97
    assert sum(score > 0.5 for score in good) <= 4  # 1 in 7 is promised
    assert np.ptp(good) > 0.01 and max(bad) < 1
    assert line in found["notes"][0] and line in page
    assert found["calibration"]["promised_rate"] == pytest.approx(1 / 7)
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored["folds"] == 6 and len(stored["train_files"]) == 6
    # Another quantile fits nothing again, also where the share is given.
    before = read_calibration(tmp_path / "run")
    said = fit(parts, tmp_path / "run", may_fold=False, threshold_quantile=0.6)
    after = read_calibration(tmp_path / "run")
    assert any("not fitting again" in s for s in said) and after.scores == before.scores
    assert after.quantile == 0.6 and after.image.threshold < before.image.threshold
    (tmp_path / "run/calibration.json").unlink()
    fit(parts, tmp_path / "run")
    assert read_calibration(tmp_path / "run").scores == pytest.approx(before.scores, rel=1e-5)


def test_a_run_that_held_images_out_goes_on_with_them(tmp_path):
    parts = write(tmp_path / "parts", {f"{i:02}": part(i) for i in range(10)})
    said = fit(parts, tmp_path / "run", may_fold=False)
    assert any("8 good images to fit on, 2 to set the threshold" in s for s in said)
    assert any("from 2 images; 19 would do" in s for s in said)
    before = read_calibration(tmp_path / "run")
    said = fit(parts, tmp_path / "run")
    assert any("not fitting again" in s for s in said)
    assert read_calibration(tmp_path / "run") == before and before.folds == 0


def test_the_scores_of_folds_are_those_of_detectors_fitted_on_the_others():
    images = np.stack([part(i) for i in range(5)])
    unfitted = api.make("raw_color", preset="smoke", image_size=SIDE)
    found = unfitted.fit(images)
    assert found.calibration.folds == 5
    for number in range(5):
        others = unfitted.fit(np.delete(images, number, 0), holdout=0)
        assert others.score(images[number])[0][0] == pytest.approx(
            found.calibration.scores[number], rel=1e-4
        )
    everything = unfitted.fit(images, holdout=0)
    for name, value in everything.variables["memory"].items():
        np.testing.assert_array_equal(value, found.variables["memory"][name])


def test_copies_are_scored_by_no_detector_that_saw_them():
    images = np.stack([part(i // 2) for i in range(8)])
    calibration = api.make("raw_color", preset="smoke", image_size=SIDE).fit(images).calibration
    assert calibration.copies == 4 and "4 of the 8 images" in calibration.notes[-1]
    distinct = api.make("raw_color", preset="smoke", image_size=SIDE).fit(images[::2]).calibration
    assert min(calibration.scores) > 0.3 * min(distinct.scores)


def test_one_image_held_out_gives_a_scale_that_is_said_to_be_none():
    images = np.stack([part(i) for i in range(6)])
    model = api.make("raw_color", preset="smoke", image_size=SIDE).fit(images, holdout=0.2)
    calibration = model.calibration
    assert len(calibration.scores) == 1 and calibration.flagged == 0
    assert "at most 50 %" in calibration.notes[0] and "not define a scale" in calibration.notes[1]
    good = [found.normalized_score for found in model.predict([part(100 + i) for i in range(8)])]
    bad = model.predict(with_hole(part(300), 16, 110)).normalized_score
    assert min(good) > 0.02 and max(good) < 0.95 < bad < 1


@pytest.mark.parametrize("names", [False, True])
def test_equal_good_pictures_given_as_files(tmp_path, names):
    """`--good` and `Model.calibrate`: pictures decoded one by one."""
    model = api.make("raw_color", preset="smoke", image_size=SIDE)
    model = model.fit(np.stack([part(i) for i in range(4)]), holdout=0)
    parts = write(tmp_path / "good", {f"{i}": part(9) for i in range(5)})
    given = sorted(str(path) for path in parts.iterdir())
    found = model.calibrate(given if names else iter(given)).calibration
    assert found.copies == 4 and found.grain and found.flagged == 0
    assert model.predict(part(9)).score < found.image.threshold


def test_a_stopped_run_is_not_taken_for_a_fitted_one(tmp_path):
    parts = write(tmp_path / "parts", {f"{i}": part(i) for i in range(6)})
    fit(parts, tmp_path / "run", may_fold=False)
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert "folds" not in record and checkpoint.has_checkpoint(tmp_path / "run")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.json").write_text(json.dumps(record))
    fit(parts, tmp_path / "begun")
    assert read_calibration(tmp_path / "begun").folds == 6

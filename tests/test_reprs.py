"""What an interactive session prints: one line for each object, and no array in it."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

import imvad_jax
from imvad_jax.data.batches import ArrayImages
from imvad_jax.data.decode import Geometry
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.evaluation.calibration import Scale
from imvad_jax.training.score import Scores
from tests.data.trees import mvtec_tree
from tests.methods.small import images

FIELDS = {"image_size": 64, "grid_size": 16, "batch_size": 8}


@pytest.fixture(scope="module")
def model():
    return imvad_jax.make("raw_color", preset="smoke", **FIELDS).fit(images(30).images)


def test_a_model_says_what_it_was_fitted_on(model, tmp_path):
    fitted = r"Model\(raw colour \(baseline\), preset smoke, 64 px, fitted on 30 images, threshold "
    assert_line(model, fitted + r"[\d.]+\)")
    model.save(tmp_path / "detector")
    assert repr(imvad_jax.load(tmp_path / "detector")) == repr(model)
    held_out = imvad_jax.make("raw_color", **FIELDS).fit(images(30).images, holdout=0.5)
    assert_line(held_out, r".*, 64 px, fitted on 15 images, threshold [\d.]+\)")
    of_before = dataclasses.replace(model, fitted_on=0, calibration=None)
    assert_line(of_before, r".*, 64 px, fitted, no threshold\)")


def test_thresholds_and_predictions(model):
    assert_line(
        model.calibration,
        r"Calibration\(threshold [\d.]+, of pixels [\d.]+, quantile 0.95, by \d+ folds of 30 good "
        r"images\)",
    )
    held_out = dataclasses.replace(model.calibration, folds=0, pixel=None)
    assert_line(held_out, r"Calibration\(threshold [\d.]+, quantile 0.95, from 30 good images\)")
    low = Scale(threshold=1.0, typical=0.5)
    strict = dataclasses.replace(model.calibration, image=low, pixel=low)
    found = dataclasses.replace(model, calibration=strict).predict(images(1).images[0])
    assert_line(
        found,
        r"ImagePrediction\(picture 0, defective, score [\d.]+, normalized [\d.]+, 64 x 64 px\)",
    )
    assert_line(found.regions[0], r"Region\(peak=[\d.]+, box=\(.*\), area=[\d.]+\)")
    bare = dataclasses.replace(found, calibration=None, anomaly_map=None, remark="turned")
    assert_line(
        bare,
        r"ImagePrediction\(picture 0, no threshold, score [\d.]+, 64 x 64 px, no map, turned\)",
    )


def test_scores(model):
    scores = model.score(images(3).images)
    assert_line(scores, r"Scores\(3 images, scores [\d.]+ to [\d.]+, maps 64 x 64\)")
    assert_line(Scores(np.ones(1), None), r"Scores\(1 image, scores 1 to 1, no maps\)")
    tiled = Scores(np.ones(2), [np.ones((3, 4)), np.ones((5, 6))])
    assert_line(tiled, r"Scores\(2 images, scores 1 to 1, maps of tiled pictures\)")
    assert_line(Scores(np.ones(0), None), r"Scores\(0 images, no maps\)")


def test_images_and_categories(model, tmp_path):
    data = imvad_jax.load_data(str(mvtec_tree(tmp_path)), model)
    defective = int(data.labels.sum())
    whole = rf"CategoryData\(folder bottle, 64 px, 6 to fit on, 5 to test \({defective} defective\)"
    assert_line(data, whole + r", masks\)")
    held_out = dataclasses.replace(data.hold_out(0.5, 0), masks=None)
    assert_line(held_out, r".*, 3 to fit on, 3 held out, 5 to test \(\d defective\), no masks\)")
    tiled = dataclasses.replace(data, tiling=Tiling(32, 4))
    assert_line(tiled, r"CategoryData\(folder bottle, tiles of 32 px, .*")
    listed = rf"Category\(folder bottle, 6 to fit on, 5 to test \({defective} defective\), masks\)"
    assert_line(data.files, listed)
    assert_line(data.test, r"ArrayImages\(5 images, 64 x 64 x \d, in memory\)")
    assert_line(
        ArrayImages(np.zeros((0, 8, 8, 1))), r"ArrayImages\(0 images, 8 x 8 x 1, in memory\)"
    )
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 40)).save(path)
    geometry = Geometry(64, 64)
    streamed = FileImages([str(path)] * 2, geometry)
    assert_line(streamed, r"FileImages\(2 images, 64 x 64, decoded as they are read\)")
    tiles = TiledImages.of_files([str(path)], Tiling(40, 8), geometry)
    assert_line(tiles, r"TiledImages\(1 pictures, 2 tiles of 40 x 40\)")


def assert_line(thing, expected: str) -> None:
    """Its repr is one line of at most 160 characters, as a regular expression says."""
    assert re.fullmatch(expected, repr(thing)), repr(thing)
    assert len(repr(thing)) <= 160

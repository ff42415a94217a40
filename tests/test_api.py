"""The Python API on numpy arrays and on a folder."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import predictor
from imvad_jax import api
from imvad_jax.data.decode import Geometry
from imvad_jax.data.pipeline import FileImages
from imvad_jax.errors import UserError
from imvad_jax.training.parallel import choose_devices
from tests.data.trees import mvtec_tree
from tests.methods.small import images

FIELDS = {"image_size": 64, "grid_size": 16, "batch_size": 8}


@pytest.fixture(scope="module")
def model():
    return api.fit(api.make("raw_color", **FIELDS), images(12).images)


def test_arrays_need_no_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it fails
    unfitted = api.make("raw_color", **FIELDS)
    model = api.fit(unfitted, images(12).images)
    scores, maps = api.score(model, images(3, 1).images)
    assert scores.shape == (3,) and maps.shape == (3, 64, 64)
    assert scores.min() > api.score(model, images(12).images).image.max()
    assert not unfitted.fitted and "memory" not in unfitted.variables


def test_grey_arrays_are_grey_colour_ones(model):
    grey = images(2).images[..., :1]
    found = api.score(model, grey), api.score(model, np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(found[0].image, found[1].image)


def test_saved_and_loaded_it_scores_the_same(model, tmp_path):
    api.save(model, tmp_path / "new" / "detector")
    api.save(model, tmp_path / "new" / "detector")  # its own may be replaced
    loaded = api.load(tmp_path / "new" / "detector")
    assert loaded.config == model.config and loaded.fitted
    new = images(3, 1).images
    for a, b in zip(api.score(model, new), api.score(loaded, new)):
        np.testing.assert_array_equal(a, b)


def test_experiments_predict_takes_what_was_saved(model, tmp_path):
    api.save(model, tmp_path / "detector")
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(images(1, number).images[0]).save(path)
    record = predictor.read_run(tmp_path / "detector")
    fitted = predictor.Fitted(tmp_path / "detector", record, choose_devices(1))
    calibration = predictor.calibrate_from(fitted, paths[:3], 0.95)
    predictor.predict(fitted, calibration, paths, tmp_path / "out", predictor.Options())
    assert (tmp_path / "out" / "index.html").is_file()
    raw = api.score(model, images(1, 3).images).image
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8-sig") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert float(rows["3.png"]["raw_score"]) == pytest.approx(raw[0], rel=1e-5)


def test_a_folder_is_loaded_at_the_size_of_the_method(model, tmp_path):
    data = api.load_data(str(mvtec_tree(tmp_path)), model)
    assert data.train.images.shape == (6, 64, 64, 3)
    assert data.labels.tolist() == [0, 0, 1, 1, 1] and data.masks.shape == (5, 64, 64)
    assert api.score(model, data.test).image.shape == (5,)
    mvtec_tree(tmp_path, "screw")
    streamed = FileImages([str(tmp_path / "bottle/train/good/000.png")], Geometry(32, 32))
    for other in (streamed, images(2, size=32)):
        with pytest.raises(UserError, match="images: "):
            api.score(model, other)
    with pytest.raises(UserError, match="holds bottle, screw; name one"):
        api.load_data(str(tmp_path), model)
    assert api.load_data(str(tmp_path), model, category="screw").name == "screw"


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("padmi", {}, "did you mean 'padim'"),
        ("raw_color", {"imagesize": 64}, "no such field"),
        ("raw_color", {"image_size": "large"}, "expected a value of type int"),
        ("padim", {}, "no weights given"),
        ("padim", {"weights": "random", "backbone": "resnet19"}, "did you mean 'resnet1"),
    ],
)
def test_what_cannot_be_made(method, fields, message):
    with pytest.raises(UserError, match=message):
        api.make(method, **fields)


def test_lists_are_fields_too():
    model = api.make("padim", weights="random", backbone="resnet18", layers=["layer1"])
    assert model.config.layers == ("layer1",) and model.weights["source"] == "random"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), r"\[2, 32, 32, 3\]; expected \[N, 64, 64, C\]"),
        (np.zeros((64, 64, 3), np.uint8), r"expected \[N, 64, 64, C\]"),
        (np.zeros((2, 64, 64, 3), np.float32), "float32; expected uint8"),
    ],
)
def test_arrays_that_do_not_fit(model, given, message):
    with pytest.raises(UserError, match=message):
        api.score(model, given)


def test_calls_in_the_wrong_order(model, tmp_path):
    unfitted = api.make("raw_color", **FIELDS)
    for call in (lambda: api.score(unfitted, images(1).images), lambda: api.save(unfitted, "x")):
        with pytest.raises(UserError, match="not fitted yet"):
            call()
    with pytest.raises(UserError, match="fitted already"):
        api.fit(model, images(2).images)
    with pytest.raises(UserError, match="no good images"):
        api.fit(unfitted, images(0).images)
    with pytest.raises(UserError, match="no model there"):
        api.load(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        api.save(model, tmp_path)

"""The Python API on numpy arrays and on a folder."""

import contextlib
import csv
import json
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from imvad_jax import api, sealed
from imvad_jax.data.decode import Geometry
from imvad_jax.data.pipeline import FileImages
from imvad_jax.errors import UserError
from imvad_jax.runs import predictor
from imvad_jax.training import checkpoint
from imvad_jax.training.parallel import choose_devices
from tests.data.trees import mvtec_tree
from tests.methods.small import images

pytestmark = pytest.mark.compiles
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


class Killed(BaseException):
    pass


@contextlib.contextmanager
def dead_after(count, monkeypatch):
    """Within it a save gets `count` steps far; nothing is cleared away, as by a killed process."""
    steps = []

    def killing(real):
        def call(*args):
            if len(steps) >= count:
                raise Killed
            steps.append(real.__name__)
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_own", "save_variables", "_remove"):
            patch.setattr(checkpoint, name, killing(getattr(checkpoint, name)))
        yield


@pytest.mark.parametrize("at", range(7))
def test_whatever_ends_a_save_one_of_the_two_models_can_be_loaded(model, tmp_path, monkeypatch, at):
    other = api.fit(api.make("raw_color", **FIELDS | {"grid_size": 8}), images(12).images)
    api.save(model, tmp_path / "detector")
    (tmp_path / "detector" / "precious.txt").write_text("mine")
    with dead_after(at, monkeypatch):
        if at < 5:
            with pytest.raises(Killed):
                api.save(other, tmp_path / "detector")
        else:
            api.save(other, tmp_path / "detector")
    expected = other if at >= 3 else model
    assert api.load(tmp_path / "detector").config == expected.config
    new = images(2, 1).images
    found = api.score(api.load(tmp_path / "detector"), new).image
    np.testing.assert_array_equal(found, api.score(expected, new).image)
    api.save(other, tmp_path / "detector")  # sweeps what was left
    api.save(model, tmp_path / "detector")
    assert api.load(tmp_path / "detector").config == model.config
    names = {path.name.partition("-")[0] for path in (tmp_path / "detector").iterdir()}
    assert names == {"config.json", "checkpoint", "precious.txt"}
    assert len(list((tmp_path / "detector").iterdir())) == 3


@pytest.mark.parametrize("at", range(4))
def test_a_first_save_that_was_ended_is_no_hindrance(model, tmp_path, monkeypatch, at):
    other = api.fit(api.make("raw_color", **FIELDS | {"grid_size": 8}), images(12).images)
    with dead_after(at, monkeypatch):
        if at < 2:
            with pytest.raises(Killed):
                api.save(model, tmp_path / "detector")
        else:
            api.save(model, tmp_path / "detector")
    if at < 2:
        with pytest.raises(UserError, match="no model there|not finished"):
            api.load(tmp_path / "detector")
    api.save(other, tmp_path / "detector")
    assert api.load(tmp_path / "detector").config == other.config


def test_a_full_disk_leaves_the_earlier_model(model, tmp_path, monkeypatch):
    api.save(model, tmp_path / "detector")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", full)
    with pytest.raises(UserError, match="cannot be written .No space left on device"):
        api.save(model, tmp_path / "detector")
    assert api.load(tmp_path / "detector").config == model.config
    assert len(list((tmp_path / "detector").iterdir())) == 2


def test_folders_of_others_are_neither_replaced_nor_written_into(model, tmp_path):
    for name in ("checkpoint/my_model.pth", "checkpoint/_CHECKPOINT_METADATA", "notes.txt"):
        directory = tmp_path / name.replace("/", "-")
        (directory / name).parent.mkdir(parents=True)
        (directory / name).write_text("mine")
        with pytest.raises(UserError, match="holds something else .*expected a new or empty"):
            api.save(model, directory)
        assert [p.read_text() for p in directory.rglob("*") if p.is_file()] == ["mine"]
    api.save(model, tmp_path / "saved")
    (tmp_path / "saved" / "checkpoint" / "mine.txt").write_text("mine")
    (tmp_path / "saved" / "checkpoint-2").mkdir()
    api.save(model, tmp_path / "saved")
    assert (tmp_path / "saved" / "checkpoint" / "mine.txt").read_text() == "mine"
    assert len(list((tmp_path / "saved" / "checkpoint").iterdir())) == 1
    assert api.load(tmp_path / "saved").config == model.config
    record = sealed.read(tmp_path / "saved" / "config.json")
    (tmp_path / "saved" / "config.json").write_text(json.dumps(record | {"checkpoint": "../x"}))
    with pytest.raises(UserError, match="not finished"):  # no way out of the directory
        api.load(tmp_path / "saved")


def test_a_model_of_before_is_loaded_and_replaced(model, tmp_path):
    api.save(model, tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    record = sealed.read(path)
    del record["checkpoint"], record["checkpoints"]  # as it was written then
    path.write_text(json.dumps(record))
    assert api.load(tmp_path / "saved").config == model.config
    api.save(model, tmp_path / "saved")
    assert api.load(tmp_path / "saved").config == model.config
    assert len(list((tmp_path / "saved").iterdir())) == 2


def test_the_home_directory_may_be_written_as_a_tilde(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    api.save(model, "~/saved")
    assert api.load("~/saved").config == model.config and not (tmp_path / "~").exists()
    mvtec_tree(tmp_path / "data")
    data = api.load_data("~/data", model, dataset="mvtec_ad", cache_dir="~/cache")
    assert len(data.train_names) == 6 and (tmp_path / "cache").is_dir()
    assert not (tmp_path / "~").exists()
    config = api.make("draem", texture_dir="~/textures").config
    assert config.texture_dir == str(tmp_path / "textures")


def test_experiments_predict_takes_what_was_saved(model, tmp_path):
    api.save(model, tmp_path / "detector")
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(images(1, number).images[0]).save(path)
    fitted = api.load(tmp_path / "detector", choose_devices(1))
    fitted = predictor.calibrate_from(fitted, paths[:3], 0.95)
    predictor.predict(fitted, paths, tmp_path / "out", predictor.Options())
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
        (np.zeros((2, 64, 64, 2), np.uint8), r"expected \[N, 64, 64, C\]"),
        (np.zeros((2, 64, 64, 3), np.uint16), "uint16; expected uint8"),
        (np.full((2, 64, 64, 3), 1.5, np.float32), "values from 1.5 to 1.5; expected"),
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

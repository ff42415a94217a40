"""The Model: what it takes, what it says, and that it is the same after it was stored."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.model import ImagePrediction, Model, load, make
from imvad_jax.training import checkpoint
from tests.data.odd_files import picture
from tests.methods.small import images

FIELDS = {"image_size": 64, "grid_size": 16, "batch_size": 8}
SPOT = (30, 10, 40, 18)  # left, top, right, bottom


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of 30 good pictures and one of 3 good and 2 defective new ones."""
    top = tmp_path_factory.mktemp("parts")
    for name, seeds in (("good", range(100, 130)), ("new", range(3))):
        (top / name).mkdir()
        for seed in seeds:
            picture(seed).save(top / name / f"{seed}.png")
    for seed in (3, 4):
        bad = picture(seed)
        bad.paste((250, 20, 20), SPOT)
        bad.save(top / "new" / f"{seed}-bad.png")
    return top


@pytest.fixture(scope="module")
def model(parts) -> Model:
    return make("raw_color", preset="smoke", **FIELDS).fit(parts / "good")


def test_a_folder_is_fitted_and_a_folder_judged(model, parts):
    found = list(model.predict(parts / "new"))
    verdicts = {os.path.basename(part.name): part.verdict for part in found}
    assert verdicts["3-bad.png"] == verdicts["4-bad.png"] == "defective"
    assert list(verdicts.values()).count("good") >= 2
    bad = found[-1]
    assert bad.defective and bad.normalized_score > 0.5 and bad.size == (48, 40)
    assert bad.anomaly_map.shape == (64, 64)
    left, top, right, bottom = bad.regions[0].box
    assert left < 35 < right and top < 14 < bottom and right <= 48 and bottom <= 40


def test_what_it_is_is_said_in_short(model):
    assert len(repr(model)) < 500
    assert "raw colour" in repr(model) and "64 px, fitted on 30 images, threshold" in repr(model)
    assert "no threshold" in repr(make("raw_color", **FIELDS).fit(images(6).images, holdout=0))
    assert "not fitted" in repr(make("raw_color", **FIELDS))


def test_it_is_the_same_in_a_new_process(model, parts, tmp_path):
    model.save(tmp_path / "detector")
    loaded = load(tmp_path / "detector")
    assert (loaded.config, loaded.calibration) == (model.config, model.calibration)
    assert (loaded.preset, loaded.overrides) == ("smoke", {k: str(v) for k, v in FIELDS.items()})
    script = (
        "import sys; from imvad_jax.model import load\n"
        "for part in load(sys.argv[1]).predict(sys.argv[2]):\n"
        "    print(part.verdict, part.score)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "detector"), str(parts / "new")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in said.splitlines()]
    expected = list(model.predict(parts / "new"))
    assert [verdict for verdict, _ in found] == [part.verdict for part in expected]
    # The other process has another number of devices.
    scores = [float(score) for _, score in found]
    np.testing.assert_allclose(scores, [part.score for part in expected], rtol=1e-5)


def test_one_picture_in_whatever_form_it_comes(model, parts):
    path = parts / "new" / "3-bad.png"
    image = Image.open(path)
    array = np.asarray(image.convert("RGB"))
    alpha = np.dstack([array, np.full(array.shape[:2], 7, np.uint8)])
    expected = model.predict(path)
    assert isinstance(expected, ImagePrediction) and expected.name == str(path)
    for given in (str(path), image, array, alpha, array / np.float32(255), Image.fromarray(alpha)):
        found = model.predict(given)
        assert found.score == expected.score and found.verdict == "defective"
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    grey = np.asarray(image.convert("L"))
    scores = {model.predict(g).score for g in (grey, grey[..., None], np.dstack([grey] * 3))}
    assert len(scores) == 1


def test_many_pictures_are_an_iterator_that_holds_a_few(model, parts):
    paths = sorted((parts / "new").iterdir())
    expected = [part.score for part in model.predict(parts / "new")]
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for given in (paths, arrays, np.stack(arrays), str(parts / "new" / "*.png"), iter(arrays)):
        found = [part.score for part in model.predict(given)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield arrays[0]

    stream = model.predict(endless(), batch_size=4)
    assert [next(stream).name for _ in range(3)] == ["picture 0", "picture 1", "picture 2"]
    assert len(taken) <= 4 * 8


def test_score_takes_what_the_method_sees(model):
    array = images(2, 1).images
    expected = model.score(array)
    for given, number in ((array[0], 0), (array[1] / 255.0, 1)):
        found = model.score(given)
        np.testing.assert_allclose(found.image[0], expected.image[number], rtol=1e-5)
        assert found.maps.shape == (1, 64, 64)
    alpha = np.concatenate([array, array[..., :1]], -1)
    np.testing.assert_allclose(model.score(alpha).image, expected.image, rtol=1e-5)
    assert model.score(array[0, ..., 0]).image.shape == (1,)


def test_a_bad_file_among_many_is_named_or_left_out(model, parts, tmp_path):
    good = parts / "new" / "0.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = model.predict([good, bad, good])
    with pytest.raises(UserError, match=r"bad\.png: not a readable image"):
        list(found)
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png: not a readable image"):
        found = list(model.predict([good, bad, good], on_bad_image="skip"))
    assert len(found) == 2 and found[0].score == found[1].score
    with pytest.raises(UserError, match="on_bad_image=ignore: expected error or skip"):
        model.predict([good], on_bad_image="ignore")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((40, 60, 3), np.uint16), "picture 0: an array of uint16; expected uint8"),
        (np.full((40, 60, 3), 255.0), "values from 255 to 255; expected floats from 0 to 1"),
        (np.full((40, 60), np.nan), "expected floats from 0 to 1"),
        (np.zeros((3, 40, 60), np.uint8), r"shape \[3, 40, 60\]; expected \[H, W\]"),
        (np.zeros((4, 60, 3), np.uint8), "60 x 4 pixels; expected at least 8 x 8"),
        (Image.new("I;16", (20, 20)), "deeper than 8 bits; give the path"),
        ("nowhere.png", "nowhere.png: "),
        ("nowhere/*.png", "images=nowhere/.*: no image files there|no image files there"),
        ([], "there are none"),
        (7, "found int; expected a path"),
    ],
)
def test_what_is_no_picture_is_said_in_one_line(model, given, message):
    with pytest.raises(UserError, match=message) as raised:
        found = model.predict(given)
        if not isinstance(found, ImagePrediction):
            list(found)
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_folder_without_pictures_and_too_few_to_hold_out(tmp_path):
    (tmp_path / "empty").mkdir()
    unfitted = make("raw_color", **FIELDS)
    with pytest.raises(UserError):
        unfitted.fit(tmp_path / "empty")
    with pytest.raises(UserError, match=r"holdout=0\.2: 1 good images are too few"):
        unfitted.fit(images(1).images)
    with pytest.raises(UserError, match="fit first"):
        unfitted.predict(images(1).images[0])
    assert not list((tmp_path / "empty").iterdir())


def test_fitting_takes_paths_and_pictures_of_any_size(parts):
    paths = sorted((parts / "good").iterdir())
    of_folder = make("raw_color", **FIELDS).fit(parts / "good")
    of_paths = make("raw_color", **FIELDS).fit(paths)
    of_arrays = make("raw_color", **FIELDS).fit([np.asarray(Image.open(p)) for p in paths])
    probe = np.asarray(picture(7))
    for other in (of_paths, of_arrays):
        assert other.predict(probe).score == pytest.approx(of_folder.predict(probe).score)
        assert other.calibration.image == of_folder.calibration.image
    with pytest.raises(UserError, match="tile: pictures in memory"):
        make("raw_color", **FIELDS, crop_size=0).fit([probe] * 3, tile=32)


def test_tiles_are_looked_at_as_they_were_fitted(parts, tmp_path):
    tiled = make("raw_color", **FIELDS, crop_size=0).fit(parts / "good", tile=32, overlap=8)
    found = tiled.predict(parts / "new" / "3-bad.png")
    assert found.anomaly_map.shape == (40, 48) and found.regions
    array = np.asarray(Image.open(parts / "new" / "3-bad.png"))
    assert tiled.predict(array).score == found.score
    tiled.save(tmp_path / "tiled")
    assert load(tmp_path / "tiled").predict(array).score == found.score


def test_a_preset_and_its_errors_name_fields():
    assert make("raw_color", preset="smoke").config.image_size == 64
    with pytest.raises(ValueError, match="^preset: unknown value 'smok'; did you mean 'smoke'"):
        make("raw_color", preset="smok")
    with pytest.raises(ValueError, match="^image_size=4: must be at least 8 pixels"):
        make("raw_color", image_size=4)
    with pytest.raises(UserError) as raised:
        make("patchcore", coreset_ratio=2.0, weights="random")
    assert str(raised.value).startswith("coreset_ratio=2.0: ")
    assert raised.value.text.startswith("--coreset_ratio=2.0: ")


@pytest.mark.parametrize("change", ["format", "config", "calibration", "variables"])
def test_a_record_that_does_not_fit_is_refused(model, tmp_path, change):
    model.save(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    record = sealed.read(path)
    if change == "format":
        path.write_text(json.dumps(record | {"format": 99}))
        message = r"written by a newer imvad_jax \(format 99\)"
    elif change == "config":
        record["config"]["grid_size"] = 8
        path.write_text(json.dumps(record))
        message = "record does not match its variables"
    elif change == "calibration":
        path.write_text(json.dumps(record | {"calibration": {"image": 1}}))
        message = "holds no calibration"
    else:
        other = make("raw_color", **FIELDS | {"grid_size": 8}).fit(images(6).images)
        folder = tmp_path / "m" / "checkpoint"
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        folder.rmdir()
        checkpoint.save_variables(tmp_path / "m", dict(other.variables))
        message = "record does not match its variables"
    with pytest.raises(UserError, match=message) as raised:
        load(tmp_path / "m")
    assert "\n" not in str(raised.value)


def test_calls_leave_the_model_as_it_was():
    unfitted = make("raw_color", **FIELDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = unfitted.fit(images(8).images, holdout=0)
    calibrated = fitted.calibrate(images(4, 5).images, quantile=1.0)
    assert not unfitted.fitted and fitted.calibration is None
    assert calibrated.calibration.quantile == 1.0 and len(calibrated.calibration.scores) == 4
    part = fitted.predict(images(1).images[0])
    assert part.verdict is part.defective is part.regions is part.normalized_score is None

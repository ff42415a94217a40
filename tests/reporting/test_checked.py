"""Records whose JSON is whole but holds what no run writes are refused by name."""

import json

import numpy as np
import pytest

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.reporting import report
from imvad_jax.reporting.checked import check_metrics, check_timings
from imvad_jax.reporting.result_files import load_results
from imvad_jax.training.record_check import check_record

RESULT = {
    "dataset": "mvtec_ad", "category": "nut", "method": "padim", "preset": "smoke", "seed": 0,
    "config": {"backbone": "none"}, "metrics": {"image_auroc": 0.5},
    "timings": {"fit": {"wall_s": 1.5, "waiting_s": None}},
}  # fmt: skip


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"seed": None}, "missing: seed"),
        ({"seed": "0"}, "seed is text '0', expected an integer"),
        ({"command": 5}, "command is number 5, expected a text"),
        ({"config": {"backbone": []}}, "config.backbone is list"),
        ({"metrics": {"image_auroc": 7}}, "image_auroc is 7, expected a number from 0 to 1"),
        ({"metrics": []}, "metrics is .., expected an object|missing: metrics"),
        ({"timings": {"fit": 3}}, "fit is 3, expected an object"),
        ({"timings": {"fit": {"wall_s": "1"}}}, "wall_s is '1', expected seconds"),
    ],
)
def test_a_result_with_a_wrong_field_is_named(tmp_path, change, reason):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(RESULT))
    assert len(load_results(tmp_path)) == 1
    path.write_text(json.dumps(RESULT | change))
    with pytest.raises(UserError, match=reason) as caught:
        load_results(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_what_runs_write_passes():
    check_record(RESULT, 1)
    check_metrics({"image_auroc": None, "pixel_pro": float("nan"), "other": "words"})
    check_timings({"fit": {"wall_s": 0, "waiting_s": 0.5, "programs": 3}})


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"seed": 1' + "0" * 400 + "}", "an integer of 401 digits"),
        (r'{"title": "\ud800"}', "surrogates not allowed"),
    ],
)
def test_json_that_no_file_of_ours_holds(text, reason):
    with pytest.raises(ValueError, match=reason):
        sealed.parse(text)
    assert sealed.parse("[" * 60 + "123456789012345678901234" + "]" * 60)


def test_predictions_of_other_types_are_refused(tmp_path):
    good = {
        "path": np.array(["a", "b"]), "label": np.array([0, 1]), "defect": np.array(["good", "x"]),
        "image_score": np.array([0.1, 0.2], np.float32),
    }  # fmt: skip
    path = tmp_path / "predictions.npz"
    np.savez(path, **good)
    assert report._read_predictions(path)["path"].tolist() == ["a", "b"]
    for name, values in (("label", [0, 2]), ("image_score", ["a", "b"]), ("path", [1, 2])):
        np.savez(path, **good | {name: np.array(values)})
        with pytest.raises(UserError, match=name) as caught:
            report._read_predictions(path)
        assert str(caught.value).startswith(str(path))

import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from imvad_jax.errors import UserError
from imvad_jax.evaluation import MetricWarning, image_metrics


@pytest.mark.parametrize("levels", [2, 3, 10, 1000, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(levels, dtype, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(120) < (0.1, 0.5, 0.73, 0.98)[seed]
    labels[:2] = False, True
    scores = rng.random(120) + 0.2 * labels
    scores = (np.floor(scores * levels) if levels else scores).astype(dtype)
    found = image_metrics(scores, labels)
    assert list(found) == ["image_auroc", "image_ap"]
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert found["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert all(type(value) is float for value in found.values())


def test_by_hand():
    # Pairs (anomalous, good): 3>1, 3>2, 2>1, 2=2 -> 3.5 of 4.
    # AP: at 3: 1/2 * 1; at 2: 1/2 * 2/3.
    found = image_metrics([3, 2, 2, 1], [1, 1, 0, 0])
    assert found == pytest.approx({"image_auroc": 3.5 / 4, "image_ap": 1 / 2 + 1 / 3}, abs=1e-12)


def test_perfect_and_inverted():
    labels = [0, 0, 0, 1, 1]
    assert image_metrics([1, 2, 3, 4, 5], labels) == {"image_auroc": 1.0, "image_ap": 1.0}
    assert image_metrics([5, 4, 3, 2, 1], labels)["image_auroc"] == 0.0


def test_infinitely_close_scores_are_not_ties():
    scores = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert image_metrics(scores, [0, 1])["image_auroc"] == 1.0
    assert image_metrics([-0.0, 0.0, 1.0], [0, 1, 1])["image_auroc"] == 0.75  # but zeros are


def test_input_is_left_as_it_was():
    scores, labels = np.array([3.0, 1.0, 2.0]), np.array([0, 0, 1])
    image_metrics(scores, labels)
    np.testing.assert_array_equal(scores, [3.0, 1.0, 2.0])


@pytest.mark.parametrize("label, word", [(0, "good"), (1, "anomalous")])
def test_one_class_is_nan_and_says_so(label, word):
    with pytest.warns(MetricWarning, match=f"all 3 images are {word}.*NaN") as caught:
        found = image_metrics([1.0, 2.0, 3.0], [label] * 3)
    assert all(math.isnan(value) for value in found.values())
    assert caught[0].filename == __file__


def test_constant_scores():
    with pytest.warns(MetricWarning, match="all 20 scores equal 7"):
        found = image_metrics(np.full(20, 7.0), np.arange(20) == 3)
    assert found == {"image_auroc": 0.5, "image_ap": 0.05}


def test_no_warning_otherwise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_metrics([1.0, 1.0, 2.0], [0, 1, 1])


@pytest.mark.parametrize(
    "scores, labels, message",
    [
        ([0.0, np.nan, np.inf], [0, 1, 1], "2 of 3 are NaN or infinite, the first at image 1"),
        ([0.0, 1.0], [0, 2], "labels: expected 0 and 1, found 2"),
        ([0.0, 1.0], [0.0, 0.5], "labels: expected 0 and 1, found 0.5"),
        ([0.0, 1.0], [0.0, np.nan], "labels: expected 0 and 1, found nan"),
        ([0.0, 1.0], ["good", "bad"], "labels: expected 0 and 1, found dtype"),
        ([0.0, 1.0], [0, 1, 1], r"scores \(2,\) and labels \(3,\)"),
        ([[0.0, 1.0]], [[0, 1]], r"expected two arrays of one shape \[N\]"),
        ([], [], "expected at least one"),
        ([1j, 2j], [0, 1], "expected real numbers, found dtype complex128"),
    ],
)
def test_bad_input(scores, labels, message):
    with pytest.raises(UserError, match=message):
        image_metrics(scores, labels)

"""`imvad_jax.metrics`: the figures of the evaluation, one by one and together, without JAX."""

import doctest
import math
import subprocess
import sys

import numpy as np
import pytest

from imvad_jax import metrics
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.reporting.metric_names import METRICS


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 8, 8), bool)
    masks[3:, 2:5, 3:6] = True
    return rng.random(6), masks.any((1, 2)), rng.random((6, 8, 8)) + 0.4 * masks, masks


def test_each_is_that_of_the_evaluation_and_all_come_in_one_call(case):
    scores, labels, maps, masks = case
    found = metrics.compute(scores, labels, maps, masks)
    assert list(found) == [metric.key for metric in METRICS]
    assert found == image_metrics(scores, labels) | pixel_metrics(maps, masks)
    assert all(0 < value < 1 for value in found.values())
    for name in ("image_auroc", "image_ap"):
        assert getattr(metrics, name)(scores, labels) == found[name]
    for name in ("pixel_auroc", "pixel_ap", "pixel_pro"):
        assert getattr(metrics, name)(maps, masks) == found[name]
    limited = metrics.compute(scores, labels, maps, masks, pro_limit=0.1)["pixel_pro"]
    assert limited == metrics.pixel_pro(maps, masks, 0.1) != found["pixel_pro"]


def test_what_is_missing_is_none_and_what_is_undefined_nan(case):
    scores, labels, maps, _ = case
    assert metrics.compute(scores, labels)["pixel_pro"] is None
    assert metrics.compute(scores, labels, maps)["pixel_auroc"] is None
    with pytest.warns(metrics.MetricWarning, match="all 6 images are good"):
        assert math.isnan(metrics.image_auroc(scores, np.zeros(6)))
    with pytest.raises(UserError, match="expected two arrays of one shape"):
        metrics.image_ap(scores, labels[:3])


def test_the_examples_are_right():
    found = doctest.testmod(metrics)
    assert found.attempted == 6 and found.failed == 0


def test_neither_jax_nor_tensorflow_is_imported():
    code = (
        "import sys; from imvad_jax import metrics\n"
        "metrics.compute([0.1, 0.9], [0, 1], [[[0.1]], [[0.9]]], [[[0]], [[1]]])\n"
        "assert not {'jax', 'flax', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

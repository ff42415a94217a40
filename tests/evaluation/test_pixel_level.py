import math
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from imvad_jax.errors import UserError
from imvad_jax.evaluation import MetricWarning, image_metrics, pixel_metrics
from tests.evaluation.drawn import ragged, smooth

NAMES = ["pixel_auroc", "pixel_ap", "pixel_pro"]


@pytest.mark.parametrize("levels", [2, 5, 50, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_roc_and_ap_equal_scikit_learn(levels, dtype, seed):
    maps, masks = ragged(seed, shape=(4, 48, 40), levels=levels)
    maps = maps.astype(dtype)
    found = pixel_metrics(maps, masks)
    y, s = masks.ravel(), maps.ravel()
    assert list(found) == NAMES
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-9)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(y, s), abs=1e-9)
    assert all(type(value) is float for value in found.values())


def test_more_anomalous_than_good_pixels():
    maps, masks = ragged(0, shape=(3, 30, 30))
    masks = ~masks
    found = pixel_metrics(maps, masks)
    y, s = masks.ravel(), maps.ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-9)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(y, s), abs=1e-9)


def test_perfect_maps():
    _, masks = ragged(0)
    found = pixel_metrics(masks.astype(np.float32), masks, benchmark_pro=True)
    assert found == pytest.approx(dict.fromkeys([*NAMES, "pixel_pro_100"], 1.0), abs=1e-12)


@pytest.mark.parametrize("limit", [0.3, 0.05])
def test_constant_maps(limit):
    _, masks = ragged(0)
    with pytest.warns(MetricWarning, match="all 768 map values equal 4.5"):
        found = pixel_metrics(np.full(masks.shape, 4.5), masks, limit, benchmark_pro=True)
    expected = [0.5, masks.mean(), limit / 2, 0.0]
    assert list(found.values()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [5, 0])
def test_order_of_images_is_irrelevant(levels):
    maps, masks = ragged(2, shape=(7, 20, 20), levels=levels)
    order = np.random.default_rng(0).permutation(7)
    found = pixel_metrics(maps[order], masks[order], benchmark_pro=True)
    assert found == pytest.approx(pixel_metrics(maps, masks, benchmark_pro=True), abs=1e-13)


@pytest.mark.parametrize("transform", [np.exp, lambda s: 1e3 * s - 7, lambda s: -1 / (s + 1)])
@pytest.mark.parametrize("levels", [5, 0])
def test_increasing_transforms_are_irrelevant(transform, levels):
    maps, masks = ragged(3, levels=levels)
    maps = maps.astype(np.float64)
    found = pixel_metrics(transform(maps), masks, benchmark_pro=True)
    assert found == pixel_metrics(maps, masks, benchmark_pro=True)


@pytest.mark.parametrize("kind", [list, tuple])
def test_sequences_equal_stacked(kind):
    maps, masks = ragged(4)
    assert pixel_metrics(kind(maps), kind(masks)) == pixel_metrics(maps, masks)


def test_images_of_different_sizes():
    maps, masks = ragged(5, shape=(3, 24, 24))
    maps = [maps[0, :20], maps[1, :, :13], maps[2]]
    masks = [masks[0, :20], masks[1, :, :13], masks[2]]
    found = pixel_metrics(maps, masks)
    y = np.concatenate([mask.ravel() for mask in masks])
    s = np.concatenate([m.ravel() for m in maps])
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-9)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(y, s), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_of_numbers(dtype):
    maps, masks = ragged(6)
    assert pixel_metrics(maps, masks.astype(dtype)) == pixel_metrics(maps, masks)


def test_low_and_mixed_precision():
    maps, masks = ragged(6, levels=4)  # quarters are exact in float16
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(maps.astype(np.float16), masks) == expected
    assert pixel_metrics((maps * 4).astype(np.int32), masks) == expected
    assert pixel_metrics([maps[0].astype(np.float64), maps[1], maps[2]], list(masks)) == expected


def test_float64_is_not_rounded():
    maps = np.array([[[1.0, 1.0 + 1e-12]]])
    assert pixel_metrics(maps, np.array([[[0, 1]]]))["pixel_auroc"] == 1.0


def test_input_is_left_as_it_was():
    maps, masks = ragged(0)
    before = maps.copy(), masks.copy()
    pixel_metrics(maps, masks)
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(masks, before[1])


@pytest.mark.parametrize("value, message", [(0, "good: there is no region"), (1, "anomalous")])
def test_one_class_is_nan_and_says_so(value, message):
    maps, masks = ragged(0)
    with pytest.warns(MetricWarning, match=f"all 768 pixels are {message}.*pixel_pro are NaN") as w:
        found = pixel_metrics(maps, np.full_like(masks, value))
    assert list(found) == NAMES and all(math.isnan(v) for v in found.values())
    assert w[0].filename == __file__
    with pytest.warns(MetricWarning, match="pixel_pro_100"):
        found = pixel_metrics(maps, np.full_like(masks, value), benchmark_pro=True)
    assert math.isnan(found["pixel_pro_100"])


def test_no_warning_otherwise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_metrics(*ragged(0), benchmark_pro=True)


def test_values_that_are_not_finite():
    maps, masks = ragged(0, shape=(4, 16, 16))
    maps[1, 3, 3], maps[3, :2, 5], maps[3, 0, 0] = np.nan, np.inf, -np.inf
    message = "4 values in 2 of 4 maps are NaN or infinite, the first in image 1"
    with pytest.raises(UserError, match=message):
        pixel_metrics(maps, masks)


@pytest.mark.parametrize(
    "maps, masks, message",
    [
        (np.zeros((2, 4, 4)), np.zeros((3, 4, 4)), r"\(2, 4, 4\)\) and masks \(\(3, 4, 4\)"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), r"image 0: map \(4, 4\) and mask \(4, 5\)"),
        (
            [np.zeros((4, 4)), np.zeros((3, 4))],
            [np.zeros((4, 4)), np.zeros((4, 3))],
            r"image 1: map \(3, 4\) and mask \(4, 3\)",
        ),
        ([np.zeros((4, 4))], np.zeros((2, 4, 4)), r"1 of shape \(4, 4\).*\(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 1)), r"expected one shape \[H, W\]"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), "at least one"),
        ([], [], "at least one"),
        (iter(()), [], "expected arrays"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), 255, np.uint8), "mask of image 0.*found 255"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), -1), "expected 0 and 1, found -1"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.5), "expected 0 and 1, found 0.5"),
        (np.zeros((1, 2, 2), complex), np.zeros((1, 2, 2)), "map of image 0: expected real"),
    ],
)
def test_bad_input(maps, masks, message):
    with pytest.raises(UserError, match=message):
        pixel_metrics(maps, masks)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, math.nan])
def test_bad_limit(limit):
    with pytest.raises(UserError, match="pro_limit"):
        pixel_metrics(*ragged(0), pro_limit=limit)


def test_speed_and_memory_of_a_large_category():
    """The largest category: five figures of 160 maps of 256 x 256 in well under 1.5 s.

    Processor seconds, since other workers of the tests use the machine meanwhile.
    """
    maps, masks = smooth()
    scores, labels = maps.max((1, 2)), masks.any((1, 2))

    def five():
        return image_metrics(scores, labels) | pixel_metrics(maps, masks)

    seconds = []
    for _ in range(3):
        start = time.process_time()
        found = five()
        seconds.append(time.process_time() - start)
    assert len(found) == 5 and 0.5 < found["pixel_auroc"] < 1
    assert min(seconds) < 1.5, seconds

    tracemalloc.start()
    five()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * maps.nbytes, peak / maps.nbytes

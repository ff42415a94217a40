import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from imvad_jax.errors import UserError
from imvad_jax.evaluation import MetricWarning, f1_at, f1_max, quantile_threshold
from imvad_jax.evaluation.threshold import images_needed, promised_rate, threshold_rank


@pytest.mark.parametrize("levels", [3, 20, 0])
@pytest.mark.parametrize("seed", range(4))
def test_f1_max_equals_a_search_of_all_thresholds(levels, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < 0.4
    scores = rng.random(60) + 0.3 * labels
    scores = (np.floor(scores * levels) if levels else scores).astype(np.float32)
    threshold, f1 = f1_max(scores, labels)
    best = max(f1_score(labels, scores >= t) for t in np.unique(scores))
    assert f1 == pytest.approx(best, abs=1e-9)
    assert f1_score(labels, scores > threshold) == pytest.approx(best, abs=1e-9)
    assert f1_at(scores, labels, threshold) == pytest.approx(best, abs=1e-9)


def test_f1_max_takes_the_highest_of_equal_thresholds():
    # At 4: 2 * 1 / (2 + 1); at 1: 2 * 2 / (2 + 4).
    assert f1_max([4, 3, 2, 1], [1, 0, 0, 1]) == (np.nextafter(4.0, 0), 2 / 3)


def test_f1_max_edges():
    assert f1_max([1.0, 2.0], [1, 1]) == (np.nextafter(1.0, 0), 1.0)
    with pytest.warns(MetricWarning, match="all 2 labels are 0"):
        assert all(math.isnan(value) for value in f1_max([1.0, 2.0], [0, 0]))
    with pytest.raises(UserError, match="the first at image 1"):
        f1_max([1.0, math.nan], [0, 1])


@pytest.mark.parametrize("count", [4, 16, 40, 200])
@pytest.mark.parametrize("quantile", [0.9, 0.95])
def test_as_many_new_good_images_are_flagged_as_promised(count, quantile):
    rng = np.random.default_rng(0)
    shares = [1 - quantile_threshold(rng.random(count), quantile) for _ in range(3000)]
    promised = promised_rate(count, threshold_rank(count, quantile))
    assert promised <= max(1 - quantile, 1 / (count + 1)) + 1e-9
    assert np.mean(shares) == pytest.approx(promised, rel=0.05)


@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_as_many_images_as_are_needed_promise_the_rate_and_one_less_does_not(quantile):
    needed = images_needed(quantile)
    for count in (needed, needed + 1, 10 * needed):
        assert promised_rate(count, threshold_rank(count, quantile)) <= 1 - quantile + 1e-9
    if needed > 1:
        fewer = needed - 1
        assert threshold_rank(fewer, quantile) == fewer
        assert promised_rate(fewer, fewer) > 1 - quantile + 1e-9
    assert images_needed(1.0) is None


def test_quantile_threshold():
    good = np.arange(11, dtype=np.float32)
    assert quantile_threshold(good, 1) == quantile_threshold(good, 0.95) == 10.0
    assert quantile_threshold(good, 0.875) == 10.0  # the 11th of 11: 12 * 0.875 is 10.5
    assert quantile_threshold(good, 0.75) == 8.0
    assert quantile_threshold(good[::-1], 0) == 0.0
    with pytest.raises(UserError, match="quantile"):
        quantile_threshold(good, 1.5)
    with pytest.raises(UserError, match="at least one"):
        quantile_threshold([], 0.5)
    with pytest.raises(UserError, match="1 of 2"):
        quantile_threshold([1.0, math.inf], 0.5)

"""Runs of good scores that threads sort give what one sort gives."""

import numpy as np
import pytest

from imvad_jax.evaluation import ranking
from imvad_jax.evaluation.pro import pro_benchmark


@pytest.mark.parametrize("good", [0, 1, 999, 5000])
@pytest.mark.parametrize("anomalous", [1, 7, 400])
@pytest.mark.parametrize("levels", [3, 200, 10**6])
def test_runs_give_what_one_sort_gives(monkeypatch, good, anomalous, levels):
    monkeypatch.setattr(ranking, "RUN", 64)
    rng = np.random.default_rng(good + anomalous + levels)
    drawn = [rng.integers(0, levels, n).astype(np.float32) for n in (good, anomalous)]
    weights = rng.random(anomalous)
    found = ranking.rank(drawn[0].copy(), drawn[1], weights)
    ordered = np.sort(drawn[0])
    np.testing.assert_array_equal(found.threshold, np.unique(drawn[1]))
    np.testing.assert_array_equal(found.below, np.searchsorted(ordered, found.threshold))
    np.testing.assert_array_equal(found.up_to, np.searchsorted(ordered, found.threshold, "right"))
    np.testing.assert_array_equal(np.sort(found.good), ordered)
    if good:
        monkeypatch.setattr(ranking, "RUN", 10**6)
        whole = ranking.rank(drawn[0].copy(), drawn[1], weights)
        assert pro_benchmark(found, 0.3) == pro_benchmark(whole, 0.3)


def test_many_scores_make_several_runs_and_many_thresholds_fewer(monkeypatch):
    monkeypatch.setattr(ranking, "RUN", 64)
    monkeypatch.setattr(ranking.os, "cpu_count", lambda: 2)
    scores = np.zeros(6400, np.float32)
    assert [len(ranking._runs(scores, n)) for n in (1, 20, 6400)] == [100, 19, 2]
    assert len(ranking._runs(scores[:60], 1)) == 1
    assert ranking._runs(scores[:0], 1) == []


@pytest.mark.parametrize(("values", "constant"), [((4, 4, 4), True), ((4, 5, 4), False)])
def test_constant(values, constant):
    scores = np.array(values, np.float32)
    assert ranking.rank(scores[:2].copy(), scores[2:]).constant is constant
